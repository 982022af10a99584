"""Template evaluation on the Python plane: Jinja's own rules, and printed text that is parsed again.

Recorded (tests/compat/values): a dotted name is the value itself; any other text is what it prints, read again where
it is a number, a list or `none`. A name that is missing anywhere is an error, and the text stays as it was written.
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
_PATH: Final = re.compile(r"\s*\{\{\s*[\w.]+\s*\}\}\s*")
_EXPRESSION: Final = re.compile(r"\s*\{\{-?(.*?)-?\}\}\s*", re.DOTALL)
_NUMBER_OR_LIST: Final = re.compile(r"-?\d+(\.\d+)?|\[.*\]", re.DOTALL)


class ListResult(list[JsonValue]):
    """A step's list result: templates see the whole list, by itself or under `result`, and no part of it."""


def python_value(text: str, scope: Mapping[str, JsonValue], *, is_read: bool = True) -> JsonValue:
    """Evaluate a template. Without `is_read`, anything but a dotted name gives the printed text.

    Raises:
        TemplateError: the plane leaves such a text as it is, and such a condition does not hold.
    """
    name = _NAME.fullmatch(text)
    if name is not None and name[1] in scope:
        return scope[name[1]]  # recorded (shell-forms): a step called `none` too
    seen = {key: value if key == "output" else _seen(value) for key, value in scope.items()}
    try:
        template = compiled(_ENGINE, text)
        found = template(**seen) if isinstance(template, TemplateExpression) else template.render(seen)
        if not is_read and _PATH.fullmatch(text) is None:
            return str(found)
        plain = _plain(found)  # says what is missing, anywhere in it
    except Exception as error:  # an expression may raise anything
        raise TemplateError(f"template {text!r}: {error}") from error
    return plain if _PATH.fullmatch(text) else _read(plain)


class _StepResult(dict[str, Any]):
    """A step's result: what it lacks is looked for in its `context`, and `data` is the whole of what has no such key
    (recorded: view-*, http-request).
    """

    def under(self, key: str) -> Any:
        """Return the value of a key. Raises KeyError."""
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
    """Jinja with its own rules: `default` keeps null, a subscript finds methods, a missing name is an error."""

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
    """Compile a template for either plane's engine: a single expression gives its value, any other text is printed."""
    expression = _EXPRESSION.fullmatch(text)
    if expression is not None and only_expression(engine.parse(text.strip())) is not None:
        return engine.compile_expression(expression[1], undefined_to_none=False)
    return engine.from_string(text)


def _plain(value: Any) -> JsonValue:
    """Return a JSON value; anything JSON cannot hold becomes Python's printed text (recorded: methods)."""
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
