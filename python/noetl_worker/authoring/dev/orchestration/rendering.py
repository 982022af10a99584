"""The rendering of templates by a plane: inputs and tools before a command is issued, and the conditions of arcs.

Each plane has its own template engine, with these results for the same template (recorded: tests/compat/values):

| template | Python plane | Rust plane |
|---|---|---|
| a missing name or key | stays as text | null |
| a missing name or key in a condition | the condition is false | null |
| the result is the text of a number or a list | a number or a list | a number, a list or any other JSON |
| a method, an unknown filter, a syntax error | stays as text | the playbook fails |
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

from noetl_worker.authoring.dev.orchestration.location import RefusedTemplate
from noetl_worker.authoring.dev.orchestration.python_templates import compiled, python_value
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
UNKNOWN_FILTERS: Final = frozenset(
    {
        "center", "filesizeformat", "forceescape", "len", "random", "striptags", "truncate", "urlencode", "urlize",
        "wordcount", "wordwrap", "xmlattr",
    }
)  # fmt: skip
"""Filters that the Rust plane's engine lacks (recorded: filter-urlencode; each was tried on noetl-server 3.54.0)."""
_SYNTAX: Final = Syntax(autoescape=False)
_FALSE: Final = frozenset({"", "false", "0", "no", "none", "null", "off", "{}", "[]"})
"""Texts of a rendered `when` that mean false, in lower case and stripped of spaces (protocol/conditions.md#truth)."""


def render_fields(value: JsonValue, scope: Mapping[str, JsonValue], plane: Dialect) -> JsonValue:
    """Return a value with its templates rendered as this plane renders them.

    The worker, not the plane, resolves `keychain.` names. So a text that is only a `keychain.` name becomes
    `{"$noetl_ref": ...}`. Any other text with `keychain.` is not rendered.

    Raises:
        TemplateError: the Rust plane cannot render a template.
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
        log.warning("a template cannot be rendered and stays as text; mend the playbook: %s", error)
        return text


def python_set(value: JsonValue, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Return a value of a `set`, rendered as by the Python plane (recorded: http-step-pages).

    A template that is one dotted name gives the value itself; any other template gives text.

    Raises:
        TemplateError: a name has no value, or the template does not parse.
    """
    if not isinstance(value, str) or "{{" not in value or "keychain." in value:
        return render_fields(value, scope, Dialect.PYTHON)
    return python_value(value, scope, is_read=False)


def _rendered_by_rust(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    if _NONE.fullmatch(text):
        return "none"  # recorded (expressions)
    try:
        _refuse_methods(text)
        # The plane's engine drops a newline at the end of a template; the worker's engine, used here, does not.
        return _numbers(_json_typed(_evaluated(text.removesuffix("\n"), scope)))
    except TemplateError as error:
        raise RefusedTemplate(str(error), text) from error


def _evaluated(text: str, scope: Mapping[str, JsonValue]) -> JsonValue:
    """Render a template as the Rust plane does. Return a value if the template is one expression, otherwise text.

    Raises TemplateError.
    """
    try:
        template = compiled(_ENGINE, text)
        if isinstance(template, TemplateExpression):
            return to_json(template(**scope), Budget())
        return template.render(dict(scope))
    except Exception as error:  # an expression may raise anything
        raise TemplateError(f"template {text!r}: {error}") from error


def _as_rust_prints(value: Any) -> str:
    """Return the text for a value inside a template, as the Rust plane writes it (recorded: types-in-text).

    Null is "" by itself, and `undefined` inside a list or an object.
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
    """Return the length of a value, as the Rust plane's filter `length` counts it: for a text, its bytes.

    Raises TemplateError for a missing value (recorded: unicode, large-single-length).
    """
    if value is None or isinstance(value, Undefined):
        raise TemplateError("Template render error: cannot calculate length of value of type undefined")
    return len(value.encode() if isinstance(value, str) else value)


def _rust_items(value: Any) -> list[Any]:
    return [] if value is None or isinstance(value, Undefined) else list(value)


def _rust_end(index: int, value: Any) -> Any:
    """Return the first item (index 0) or last item (index -1) of a list, as the Rust plane's filters do.

    Raises TemplateError for an empty list (seen on noetl-server 3.54.0).
    """
    items = _rust_items(value)
    if not items:
        raise TemplateError("Template render error: sequence is empty")
    return items[index]


def _rust_float(value: Any) -> float:
    """Return a value as a float. Raises TemplateError for a text with spaces or `_` (seen on noetl-server 3.54.0)."""
    text = str(value)
    if not isinstance(value, (int, float)) and (text != text.strip() or "_" in text or not text):
        raise TemplateError(f"Template render error: no number: {text!r}")
    return float(value)


def _rust_int(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(_rust_float(value))


class _RustEngine(Environment):
    """The worker's template engine, changed to render as the Rust plane's engine does."""

    def __init__(self) -> None:
        super().__init__(LENIENT.undefined)
        self.finalize = _as_rust_prints
        self.filters |= {"length": _rust_length, "count": _rust_length, "list": _rust_items}
        self.filters |= {"first": partial(_rust_end, 0), "last": partial(_rust_end, -1)}
        self.filters |= {"int": _rust_int, "float": _rust_float}
        self.tests |= {"none": lambda value: False}  # recorded (arcs-conditions): null counts as undefined

    def step_result(self, context: Any, name: str, obj: Any) -> Any:
        """Return the value of `STEP.result`: the value of the key `result` in the step's result.

        Without this key there is no value, as on the Rust plane. The worker's own engine returns the whole result.
        """
        return self.getattr(obj, "result")


_ENGINE: Final = _RustEngine()


def _json_typed(value: JsonValue) -> JsonValue:
    """Convert a text into the value that it has as JSON, as the Rust plane does (protocol/command.md#rust-plane).
    Return a text that is not JSON, and any other value, unchanged.

    The Rust plane does so with every text, even one without a template.

    `007` gives 7, `true` gives true, and an empty text gives null (recorded: braces-single, shell-true). A text that
    begins with a double quote stays unchanged. `+5`, `.5`, `5.` and `007.5` give numbers, a number beyond 64 bits gives
    a float, and `None` and spaces give null (seen on noetl-server 3.54.0).
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
    """Return a number's text as an integer of 64 bits, or else as a float. Raises ValueError for an infinite float."""
    read = float(text)
    if not math.isfinite(read):
        raise ValueError(text)
    whole = int(text) if _WHOLE.fullmatch(text) else None
    return whole if whole is not None and -(2**63) <= whole < 2**63 else read


def _numbers(value: JsonValue) -> JsonValue:
    """Return a list or object with its floats converted as by the Rust plane (recorded: view-rhai, pg-types).

    A whole float becomes an integer. Any other float becomes text if there is a null anywhere in the value.
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
    """Raise TemplateError if a template calls a method or filter that the Rust plane lacks, or has a syntax error.

    The Rust plane has no methods, such as `.get()` (recorded: methods).
    """
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
    """Return whether a dotted name has a value in templates of this plane. A null counts if its key exists.

    Args:
        names: the parts of the dotted name.
    """
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
    """Return whether a condition is true. A missing `when` counts as true. A text without braces is an expression.

    Args:
        where: the condition's place, for the log.

    Raises:
        RefusedTemplate: the Rust plane cannot evaluate the condition. On the Python plane such a condition is false.
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
        log.warning("%s: the condition cannot be evaluated and counts as false; mend the condition: %s", where, error)
        return False
    return value.strip().lower() not in _FALSE if isinstance(value, str) else bool(value)
