"""Server-side rendering: which templates a plane fills in before a command goes out, and when an arc holds."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from noetl_worker.errors import TemplateError
from noetl_worker.models import JsonValue
from noetl_worker.template import render

__all__ = ["holds", "render_fields"]

log = logging.getLogger(__name__)
_KEYCHAIN: Final = re.compile(r"\{\{\s*keychain\.(\w+)\.(\w+)\s*\}\}")
_FALSE: Final = frozenset({"", "false", "0", "no", "none", "null", "off", "{}", "[]"})
"""conditions.md 9: what an arc's rendered `when` may say to mean no, after trimming and lower-casing."""


def render_fields(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """`value` with its templates filled in, as the planes do it.

    Text with `keychain.` in a template is the worker's to resolve: a lone reference becomes `{"$noetl_ref": ...}`,
    other text stays. A template that fails stays as literal text (wire.md 9.4).
    """
    if isinstance(value, str):
        return _render_text(value, scope)
    if isinstance(value, dict):
        return {key: render_fields(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [render_fields(item, scope) for item in value]
    return value


def _render_text(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    if "{{" not in text and "{%" not in text:
        return text
    if "keychain." in text:
        reference = _KEYCHAIN.fullmatch(text.strip())
        if reference is None:
            return text
        return {"$noetl_ref": {"kind": "keychain", "name": reference[1], "field": reference[2]}}
    try:
        return render(text, scope)
    except TemplateError as error:
        log.warning("template left as text: %s", error)
        return text


def holds(when: JsonValue, scope: Mapping[str, JsonValue], where: str) -> bool:
    """Whether an arc is taken. No `when` holds; bare text is an expression; one that fails does not hold."""
    if when is None or isinstance(when, bool):
        return when is not False
    text = str(when)
    if "{{" not in text and "{%" not in text:
        text = "{{ " + text + " }}"
    try:
        value = render(text, scope)
    except TemplateError as error:
        log.warning("%s: the condition cannot be evaluated and counts as false: %s", where, error)
        return False
    if isinstance(value, (bool, int, float, type(None), list, dict)):
        return bool(value)
    return str(value).strip().lower() not in _FALSE
