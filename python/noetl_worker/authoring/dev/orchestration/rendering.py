"""Server-side rendering: the templates that a plane fills in before a command goes out, and the conditions of arcs.

Each plane has its own template engine; recorded (tests/compat/values) is what they make of the same text:

| | Python plane | Rust plane |
|---|---|---|
| a missing name or key | the text stays | null |
| a missing name or key in a condition | the condition does not hold | null |
| text around expressions that reads as a number or a list | becomes it | becomes it, JSON too |
| methods of values, a filter it does not have, a syntax error | the text stays | the playbook fails |
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from jinja2 import Environment as Syntax
from jinja2 import TemplateSyntaxError, Undefined, nodes
from jinja2.environment import TemplateExpression

from noetl_worker.authoring.dev.orchestration.python_templates import compiled, python_value
from noetl_worker.authoring.dev.orchestration.spot import RefusedTemplate
from noetl_worker.errors import TemplateError
from noetl_worker.models.wire import Dialect, JsonValue, with_scalars
from noetl_worker.text.templates.filters import to_text
from noetl_worker.text.templates.limits import Budget
from noetl_worker.text.templates.sandbox import LENIENT, Environment
from noetl_worker.text.templates.template import to_json

log = logging.getLogger(__name__)
_KEYCHAIN: Final = re.compile(r"\{\{\s*keychain\.(\w+)\.(\w+)\s*(\|[^{}]*)?\}\}")
_NONE: Final = re.compile(r"\s*\{\{\s*none\s*\}\}\s*")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LARGEST_WHOLE: Final = 2**63 - 1
ONE_NAME: Final = re.compile(r"\s*\{\{\s*[\w.]+\s*\}\}\s*")
"""A text that is one dotted name."""
UNKNOWN_FILTERS: Final = frozenset(
    {
        "center", "filesizeformat", "forceescape", "len", "random", "striptags", "truncate", "urlencode", "urlize",
        "wordcount", "wordwrap", "xmlattr",
    }
)  # fmt: skip
"""Filters that the Rust plane's engine lacks (recorded: filter-urlencode; noetl-server 3.54.0 was asked for each)."""
_SYNTAX: Final = Syntax(autoescape=False)
_FALSE: Final = frozenset({"", "false", "0", "no", "none", "null", "off", "{}", "[]"})
"""protocol/conditions.md#truth: what an arc's rendered `when` may say to mean no, after trimming and lower-casing."""


def render_fields(value: JsonValue, scope: Mapping[str, JsonValue], plane: Dialect) -> JsonValue:
    """Return `value` with its templates filled in as this plane does it.

    Text with `keychain.` in a template is the worker's to resolve: a lone reference becomes `{"$noetl_ref": ...}`,
    other text stays.

    Raises:
        TemplateError: Rust plane: a template that it cannot render.
    """
    return with_scalars(value, lambda scalar: _render_text(scalar, scope, plane))


def _render_text(text: JsonValue, scope: Mapping[str, JsonValue], plane: Dialect) -> JsonValue:
    if not isinstance(text, str):
        return text
    if "{{" not in text and "{%" not in text:
        return _json_typed(text) if plane is Dialect.RUST else text
    if "keychain." in text and (plane is Dialect.PYTHON or "default" not in text):
        reference = _KEYCHAIN.fullmatch(text.strip())
        if reference is None:
            return text
        return {"$noetl_ref": {"kind": "keychain", "name": reference[1], "field": reference[2]}}
    if plane is Dialect.RUST:
        return _rendered_by_rust(text, scope)
    try:
        return python_value(text, scope)
    except TemplateError as error:
        log.warning("template left as text: %s", error)
        return text


def python_set(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Evaluate a value of a `set` as the Python plane does: a dotted name keeps its type, any other template becomes
    printed text (recorded: http-step-pages).

    Raises:
        TemplateError: something is missing, or it does not parse.
    """
    if not isinstance(value, str) or "{{" not in value or "keychain." in value:
        return render_fields(value, scope, Dialect.PYTHON)
    return python_value(value, scope, is_read=False)


def _rendered_by_rust(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    if _NONE.fullmatch(text):
        return "none"  # recorded (expressions)
    try:
        _refuse_methods(text)
        # Its engine, as Jinja, drops the newline at the end of what it renders; the worker's does not.
        return _numbers(_json_typed(_evaluated(text.removesuffix("\n"), scope)))
    except TemplateError as error:
        raise RefusedTemplate(str(error), text) from error


def _evaluated(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Return the value of a text that is one expression; any other text as the Rust plane prints it."""
    try:
        template = compiled(_ENGINE, text)
        if isinstance(template, TemplateExpression):
            return to_json(template(**scope), Budget())
        return template.render(dict(scope))
    except Exception as error:  # an expression may raise anything
        raise TemplateError(f"template {text!r}: {error}") from error


def _as_rust_prints(value: Any) -> str:
    """Print a value as the Rust plane does: null is empty, but `undefined` inside a list or object (recorded:
    types-in-text).
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)}: {_inside(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inside, value)) + "]"
    return "" if value is None else to_text(value)


def _inside(value: Any) -> str:
    if value is None:
        return "undefined"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _as_rust_prints(value)


def _rust_length(value: Any) -> int:
    """Return a value's length, a text's in bytes; a missing value has none (recorded: unicode, large-single-length)."""
    if value is None or isinstance(value, Undefined):
        raise TemplateError("Template render error: cannot calculate length of value of type undefined")
    return len(value.encode() if isinstance(value, str) else value)


def _rust_items(value: Any) -> list[Any]:
    return [] if value is None or isinstance(value, Undefined) else list(value)


def _rust_end(index: int, value: Any) -> Any:
    """Return the first or last item (seen on noetl-server 3.54.0: there has to be one)."""
    items = _rust_items(value)
    if not items:
        raise TemplateError("Template render error: sequence is empty")
    return items[index]


def _rust_float(value: Any) -> float:
    """Return a number (seen on noetl-server 3.54.0: a text has to be one, without spaces)."""
    text = str(value)
    if not isinstance(value, (int, float)) and (text != text.strip() or "_" in text or not text):
        raise TemplateError(f"Template render error: no number: {text!r}")
    return float(value)


def _rust_int(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(_rust_float(value))


class _RustEngine(Environment):
    """The worker's engine, changed where the Rust plane's engine differs."""

    def __init__(self) -> None:
        super().__init__(LENIENT.undefined)
        self.finalize = _as_rust_prints
        self.filters |= {"length": _rust_length, "count": _rust_length, "list": _rust_items}
        self.filters |= {"first": partial(_rust_end, 0), "last": partial(_rust_end, -1)}
        self.filters |= {"int": _rust_int, "float": _rust_float}
        self.tests |= {"none": lambda value: False}  # recorded (arcs-conditions): a null of data is undefined

    def step_result(self, context: Any, name: str, obj: Any) -> Any:
        """Return the key `result`; unlike the worker's engine, never the step itself for older playbooks."""
        return self.getattr(obj, "result")


_ENGINE: Final = _RustEngine()


def _json_typed(value: JsonValue) -> JsonValue:
    """Return a text as the value it reads as, literal text too (protocol/command.md#rust-plane).

    Recorded (braces-single, shell-true): `"007"` is 7, `""` is null, `true` is true. A quoted text stays text. Seen on
    noetl-server 3.54.0: `+5`, `.5`, `5.` and `007.5` are numbers, a number beyond 64 bits is a float, `None` and spaces
    are null.
    """
    if not isinstance(value, str) or value.lstrip()[:1] == '"':
        return value
    text = value.strip()
    if text in ("", "None"):
        return None
    try:
        return _number(text) if _NUMBER.fullmatch(text) else json.loads(value, parse_constant=_number)
    except (ValueError, RecursionError):  # too many digits, or too deep
        return value


def _number(text: str) -> JsonValue:
    """Parse an integer of 64 bits, else a float. Raises ValueError for a number that no float can hold."""
    read = float(text)
    if not math.isfinite(read):
        raise ValueError(text)
    whole = int(text) if _WHOLE.fullmatch(text) else None
    return whole if whole is not None and -(2**63) <= whole < 2**63 else read


def _numbers(value: JsonValue) -> JsonValue:
    """Convert floats as the plane does: in a list or object a whole float becomes an integer, and any other float
    becomes text if a null is beside it (recorded: view-rhai, pg-types).
    """
    if not isinstance(value, (dict, list)):
        return value
    has_null = _has_null(value)

    def number(scalar: JsonValue) -> JsonValue:
        if not isinstance(scalar, float):
            return scalar
        if scalar.is_integer() and abs(scalar) <= _LARGEST_WHOLE:
            return int(scalar)
        return str(scalar) if has_null else scalar

    return with_scalars(value, number)


def _has_null(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _refuse_methods(text: str) -> None:
    """Refuse `.get()`, `.items()`, `.upper()` and the like, which the Rust plane does not know (recorded: methods)."""
    try:
        tree = _SYNTAX.parse(text)
    except TemplateSyntaxError as error:
        raise TemplateError(f"Template parse error: {error}") from error
    if any(isinstance(call.node, nodes.Getattr) for call in tree.find_all(nodes.Call)):
        raise TemplateError(f"Template render error: unknown method in {text}")
    for found in tree.find_all(nodes.Filter):
        if found.name in UNKNOWN_FILTERS:
            raise TemplateError(f"Template render error: unknown filter: {found.name} in {text}")


def is_there(names: Sequence[str], scope: Mapping[str, JsonValue], plane: Dialect) -> bool:
    """Return whether a template of this plane finds a value under dotted names; null is one where its key is there."""
    text = "{{ " + names[0] + "".join(f"[{json.dumps(name)}]" for name in names[1:]) + " }}"
    dotted = "{{ " + ".".join(names) + " }}"
    try:
        if plane is Dialect.PYTHON:
            python_value(dotted if all(name.isidentifier() for name in names) else text, scope)
            return True
        if _evaluated(text, scope) is not None:
            return True
    except TemplateError:
        return False
    value: Any = scope
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def holds(when: JsonValue, scope: Mapping[str, JsonValue], where: str, plane: Dialect) -> bool:
    """Return True if an arc is taken. An arc without `when` is taken; bare text is an expression.

    An expression that fails is false on the Python plane, and fails the playbook on the Rust plane (TemplateError).
    """
    if when is None or isinstance(when, bool):
        return when is not False
    text = str(when)
    if "{{" not in text and "{%" not in text:
        text = "{{ " + text + " }}"
    try:
        if plane is Dialect.RUST:
            _refuse_methods(text)
            value = _evaluated(text, scope)
        else:
            value = python_value(text, scope)
    except TemplateError as error:
        if plane is Dialect.RUST:
            raise RefusedTemplate(str(error), str(when)) from error
        log.warning("%s: the condition cannot be evaluated and counts as false: %s", where, error)
        return False
    return value.strip().lower() not in _FALSE if isinstance(value, str) else bool(value)
