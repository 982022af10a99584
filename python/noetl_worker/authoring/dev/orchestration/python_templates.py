"""The rendering of templates on the Python plane (recorded: tests/compat/values).

A template of one dotted name, such as `{{ start.rows }}`, gives the name's value. Any other template gives text. The
plane then converts the text of a number, a list or `none`: `7` becomes the number 7. A template with a name without a
value stays as written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from jinja2 import StrictUndefined, Template
from jinja2.environment import TemplateExpression
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from noetl_worker.errors import TemplateError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.templates.calls import charged
from noetl_worker.text.templates.costs import FILTER_COSTS
from noetl_worker.text.templates.sandbox import Environment
from noetl_worker.text.templates.template import only_expression

_NAME: Final = re.compile(r"\s*\{\{\s*(\w+)\s*\}\}\s*")
ONE_NAME: Final = re.compile(r"\s*\{\{\s*[\w.]+\s*\}\}\s*")
"""Pattern of a template that is only one dotted name: `{{ start.total }}`. Such a template keeps its value's type."""
_EXPRESSION: Final = re.compile(r"\s*\{\{-?(.*?)-?\}\}\s*", re.DOTALL)
_NUMBER_OR_LIST: Final = re.compile(r"-?\d+(\.\d+)?|\[.*\]", re.DOTALL)


class ListResult(list[JsonValue]):
    """A list that a step returned. Templates of later steps find the list under `STEP` and `STEP.result`. `STEP[0]` has
    no value.
    """


def python_value(text: str, scope: Mapping[str, JsonValue], *, is_read: bool = True) -> JsonValue:
    """Return the value of a template.

    Args:
        is_read: True converts the text of a number, a list or `none`; False leaves the text unchanged.

    Raises:
        TemplateError: the template cannot be rendered. The plane then keeps the template's text, or counts a condition
            as false.
    """
    name = _NAME.fullmatch(text)
    if name is not None and name[1] in scope:
        return scope[name[1]]  # recorded (shell-forms): even for a step with the name `none`
    seen = {key: value if key == "output" else _seen(value) for key, value in scope.items()}
    try:
        template = compiled(_ENGINE, text)
        found = template(**seen) if isinstance(template, TemplateExpression) else template.render(seen)
        if not is_read and ONE_NAME.fullmatch(text) is None:
            return str(found)
        plain = _plain(found)  # raises if a value is missing anywhere in it
    except Exception as error:  # an expression may raise anything
        raise TemplateError(f"template {text!r}: {error}") from error
    return plain if ONE_NAME.fullmatch(text) else _read(plain)


class _StepResult(dict[str, Any]):
    """A step's result as templates read the result (recorded: view-*, http-request).

    For a key that the result lacks, the result's `context` is searched. If the result has no key `data`, `STEP.data` is
    the result itself.
    """

    def under(self, key: str) -> Any:
        """Return the value of a key of the step's result. Raises KeyError if the key is missing."""
        if key == "data" and key not in self:
            return self
        context = self.get("context")
        found = context[key] if key not in self and isinstance(context, dict) else self[key]
        return _StepResult(found) if isinstance(found, dict) else found


def _seen(value: JsonValue) -> Any:
    if isinstance(value, ListResult):
        return {"result": list(value)}
    return _StepResult(value) if isinstance(value, dict) and isinstance(value.get("context"), dict) else value


class _Engine(Environment):
    """The Python plane's template engine: the worker's engine with the rules of plain Jinja.

    `default` does not replace null, a subscript may give a method, and a missing name is an error.
    """

    def __init__(self) -> None:
        super().__init__(StrictUndefined)
        self.finalize = str  # recorded (types-in-text): `None`, `{'a': True}`
        self.keep_trailing_newline = False
        known = FILTERS.keys() & FILTER_COSTS.keys()
        self.filters = {**self.filters, **{name: charged(FILTERS[name], FILTER_COSTS[name]) for name in known}}

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, _StepResult):
            try:
                return obj.under(attribute)
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return ImmutableSandboxedEnvironment.getitem(self, obj, argument)

    def step_result(self, context: Any, name: str, obj: Any) -> Any:
        return self.getattr(obj, "result")


_ENGINE: Final = _Engine()


@lru_cache(maxsize=512)
def compiled(engine: Environment, text: str) -> Template | TemplateExpression:
    """Compile a template. The result gives a value if the template is one expression, and otherwise text."""
    expression = _EXPRESSION.fullmatch(text)
    if expression is not None and only_expression(engine.parse(text.strip())) is not None:
        return engine.compile_expression(expression[1], undefined_to_none=False)
    return engine.from_string(text)


def _plain(value: Any) -> JsonValue:
    """Return a template's value as JSON. Any other type becomes the text that `str` gives (recorded: methods)."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def _read(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text == "none":  # recorded (undefined-single)
        return None
    if _NUMBER_OR_LIST.fullmatch(text):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return value
    return value
