"""The conditions in the `when` of a case, and their twelve operators (protocol/conditions.md#cases).

Rust counterpart: rust/engine/src/condition.rs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from noetl_worker.engine.pure.document import encode, parse, walk
from noetl_worker.engine.pure.regex_automaton import KEPT, Automaton
from noetl_worker.engine.pure.regex_dialect import compile_pattern
from noetl_worker.errors import CaseError, ConditionError
from noetl_worker.models.wire import JsonValue, texts_in

_RUST_FLOAT: Final = re.compile(
    r"[+-]?(?:inf|infinity|nan|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII
)
_QUOTED_CHARS: Final = 60
MAX_KEPT: Final = 256 * (KEPT + 256)
"""Size limit of the cache of compiled regular expressions, as a sum of their characters, instructions and states.

It allows 256 ordinary expressions, or three of the largest.
"""


@dataclass(frozen=True, slots=True)
class Condition:
    left: str
    op: str
    right: JsonValue
    path: tuple[str, ...] | None
    """Path in the tool's data that the left side names, such as `result.rows`; None if it names nothing in the data."""
    left_has_marks: bool
    """True if the left side has `{{` or `{%`. Such a left side is rendered as a template, except if it begins with
    `result.` or a variable has the whole left side as its name."""
    right_has_marks: bool
    """True if a string in the right side contains a template."""


class LeftTemplate(NamedTuple):
    """A condition's left side that is a template, and has to be rendered before the condition can be evaluated."""

    text: str


def parse_condition(value: JsonValue, where: str) -> Condition:
    """Parse a condition, {"left", "op"?, "right"?} or the positional form [left, op?, right?].

    Args:
        where: position of the condition, with which the text of an error begins.

    Raises:
        CaseError: `wrong_type`, `missing_field`, `unknown_operator`.
    """
    if isinstance(value, list):
        if not 1 <= len(value) <= 3:
            raise CaseError("wrong_type", f"{where}: a positional condition has 1 to 3 elements, found {len(value)}")
        fields = dict(zip(("left", "op", "right"), value, strict=False))
    elif isinstance(value, dict):
        fields = value
    else:
        raise CaseError("wrong_type", f"{where}: expected an object, found {kind_name(value)}")
    if "left" not in fields:
        raise CaseError("missing_field", f"{where}.left is missing")
    left = fields["left"]
    if not isinstance(left, str):
        raise CaseError("wrong_type", f"{where}.left: expected a text, found {kind_name(left)}")
    op = fields.get("op", "eq")
    if not isinstance(op, str):
        raise CaseError("wrong_type", f"{where}.op: expected a text, found {kind_name(op)}")
    if op not in OPERATORS:
        raise CaseError("unknown_operator", f"{where}.op: no operator {quoted(op)}; one of {', '.join(OPERATORS)}")
    right = fields.get("right")
    return Condition(left, op, right, _data_path(left), _is_marked(left), any(map(_is_marked, texts_in(right))))


def _data_path(left: str) -> tuple[str, ...] | None:
    if left == "result":
        return ()
    return tuple(left[7:].split(".")) if left.startswith("result.") else None


def _is_marked(text: str) -> bool:
    return "{{" in text or "{%" in text


def resolve_left(condition: Condition, variables: JsonValue, data: JsonValue) -> JsonValue | LeftTemplate:
    """Return the value of a condition's left side.

    The left side may name tool data (`result`, `result.a.b`) or a variable, or be a template, which is returned
    unrendered. Otherwise it is a literal string.
    """
    if condition.path is not None:
        return walk(data, condition.path)
    if isinstance(variables, dict) and condition.left in variables:
        return variables[condition.left]
    return LeftTemplate(condition.left) if condition.left_has_marks else condition.left


def is_equal(left: JsonValue, right: JsonValue) -> bool:
    """Compare two JSON values without coercion: 1, 1.0 and true are three different values."""
    pairs = [(left, right)]
    while pairs:
        left, right = pairs.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, list):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(left, dict):
            if left.keys() != right.keys():
                return False
            pairs.extend((value, right[key]) for key, value in left.items())
        elif left != right:
            return False
    return True


def _as_double(value: JsonValue) -> float:
    """Convert an operand of gt, lt, gte or lte to a float, as Rust parses an f64. A null or missing operand is 0."""
    if value is None:
        return 0.0
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    if isinstance(value, str):
        if _RUST_FLOAT.fullmatch(value):
            return float(value)
        raise ConditionError("not_a_number", f"{quoted(value)} is not a number: gt, lt, gte and lte compare numbers")
    raise ConditionError("not_numeric", f"{kind_name(value)} cannot be ordered: gt, lt, gte and lte compare numbers")


def _contains(left: JsonValue, right: JsonValue) -> bool:
    return (right if isinstance(right, str) else "") in (left if isinstance(left, str) else "")


def _matches(left: JsonValue, right: JsonValue) -> bool:
    pattern = compiled(right if isinstance(right, str) else "")
    return pattern.is_found_in(left if isinstance(left, str) else "")


_patterns: Final[dict[str, Automaton]] = {}


def compiled(source: str, kept: dict[str, Automaton] = _patterns) -> Automaton:
    """Compile the regular expression `source`, or return it from the cache `kept`. A full cache is cleared.

    Errors are not cached: an invalid expression raises at every call.
    """
    pattern = kept.get(source)
    if pattern is None:
        pattern = compile_pattern(source)
        size = sum(len(text) + len(known) + KEPT for text, known in list(kept.items()))
        if size + len(source) + len(pattern) + KEPT > MAX_KEPT:
            kept.clear()
        kept[source] = pattern
    return pattern


def _is_in(left: JsonValue, right: JsonValue) -> bool:
    return isinstance(right, list) and any(is_equal(left, element) for element in right)


# The left side is converted before the right one, as in the planes' own workers: an error names the left side first.
OPERATORS: Final[dict[str, Callable[[JsonValue, JsonValue], bool]]] = {
    "eq": is_equal,
    "ne": lambda left, right: not is_equal(left, right),
    "gt": lambda left, right: _as_double(left) > _as_double(right),
    "lt": lambda left, right: _as_double(left) < _as_double(right),
    "gte": lambda left, right: _as_double(left) >= _as_double(right),
    "lte": lambda left, right: _as_double(left) <= _as_double(right),
    "contains": _contains,
    "matches": _matches,
    "truthy": lambda left, _right: bool(left),
    "falsy": lambda left, _right: not left,
    "in": _is_in,
    "not_in": lambda left, right: not _is_in(left, right),
}


def decide(left: bytes, op: str, right: bytes | None) -> bool:
    """Return whether a condition's operator holds for two JSON values; see `protocol.Engine.decide`."""
    if op not in OPERATORS:
        raise CaseError("unknown_operator", f"no operator {quoted(op)}; one of {', '.join(OPERATORS)}")
    return OPERATORS[op](parse(left), None if right is None else parse(right))


def evaluate(condition: bytes, variables: bytes, data: bytes | None) -> bool:
    """Evaluate one condition, which must contain no template; see `protocol.Engine.evaluate`."""
    parsed = parse_condition(parse(condition), "condition")
    scope, tool_data = parse(variables), None if data is None else parse(data)
    left = resolve_left(parsed, scope, tool_data)
    if isinstance(left, LeftTemplate) or parsed.right_has_marks:
        raise ConditionError("template_reached", "the condition has a template; match it through a case table")
    return OPERATORS[parsed.op](left, parsed.right)


def kind_name(value: JsonValue) -> str:
    """Name the JSON type of a value for an error text, such as `an array`."""
    kinds = {type(None): "null", bool: "a boolean", str: "a text", list: "an array", dict: "an object"}
    return kinds.get(type(value), "a number")


def quoted(text: str) -> str:
    """Quote a string for an error text, or give only its length if it is long.

    An excerpt of a long string could contain a cut secret, which redaction would not recognize.
    """
    return encode(text).decode("utf-8") if len(text) <= _QUOTED_CHARS else f"a text of {len(text)} characters"
