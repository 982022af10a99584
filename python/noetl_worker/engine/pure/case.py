"""Parsed lists of `when`/`then` cases, and the search for the first case that holds (protocol/conditions.md#cases).

Rust counterpart: rust/engine/src/case.rs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.engine.protocol import CaseMatch, Side
from noetl_worker.engine.pure.condition import (
    OPERATORS,
    Condition,
    LeftTemplate,
    kind_name,
    parse_condition,
    quoted,
    resolve_left,
)
from noetl_worker.engine.pure.document import parse
from noetl_worker.errors import CaseError, ConditionError
from noetl_worker.models.case import CaseAction, Continue, Exit, Fail, Goto, Retry, SetVar, SkippedCase
from noetl_worker.models.wire import JsonValue

_ACTIONS: Final = ("continue", "exit", "set_var", "goto", "retry", "fail")
_U64_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Case:
    when: tuple[Condition, ...]
    then: CaseAction


class CaseTable:
    """A parsed list of `when`/`then` cases, searched for the first case that holds (`protocol.CompiledCases`)."""

    __slots__ = ("_cases", "reads_result", "skipped", "variables")

    def __init__(self, cases: tuple[Case, ...], skipped: tuple[SkippedCase, ...]) -> None:
        conditions = [condition for case in cases for condition in case.when]
        self._cases = cases
        self.skipped = skipped
        self.variables = tuple(sorted({c.left for c in conditions if c.path is None}))
        self.reads_result = any(condition.path is not None for condition in conditions)

    def __len__(self) -> int:
        return len(self._cases)

    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | NeedsTemplate | None:
        """Return the first case that holds, None, or a pending match that waits for a rendered template.

        See `protocol.CompiledCases.match`.
        """
        return _Match(self._cases, parse(variables), None if data is None else parse(data)).go_on()


_TO_BE_FOUND: Final = object()
"""Marker for a side of a condition whose value has not been computed yet."""


@dataclass(frozen=True, slots=True)
class _Match:
    """The inputs of a search for the first case that holds: the cases, the variables and the tool's data.

    The object is immutable, so that a search that waits for a rendered template can be resumed more than once.
    """

    cases: tuple[Case, ...]
    variables: JsonValue
    data: JsonValue

    def go_on(
        self, first_case: int = 0, at: int = 0, left: Any = _TO_BE_FOUND, right: Any = _TO_BE_FOUND
    ) -> CaseMatch | NeedsTemplate | None:
        """Search on from condition `at` of case `first_case`. Return the first case that holds, or None.

        Return a pending match instead if a template has to be rendered first.

        Args:
            first_case: index of the case to begin with.
            at: index of the condition in that case.
            left: left side of that condition, if it has already been rendered.
            right: right side of that condition, if it has already been rendered.
        """
        for case_index in range(first_case, len(self.cases)):
            case = self.cases[case_index]
            while at < len(case.when):
                condition = case.when[at]
                if left is _TO_BE_FOUND:
                    left = resolve_left(condition, self.variables, self.data)
                if isinstance(left, LeftTemplate):
                    return NeedsTemplate(case_index, at, "left", left.text, self)
                if right is _TO_BE_FOUND and condition.right_has_marks:
                    return NeedsTemplate(case_index, at, "right", condition.right, self, left)
                if not self._holds(case_index, at, left, condition.right if right is _TO_BE_FOUND else right):
                    break
                at, left, right = at + 1, _TO_BE_FOUND, _TO_BE_FOUND
            else:
                return CaseMatch(case_index, case.then)
            at, left, right = 0, _TO_BE_FOUND, _TO_BE_FOUND
        return None

    def _holds(self, case_index: int, at: int, left: JsonValue, right: JsonValue) -> bool:
        try:
            return OPERATORS[self.cases[case_index].when[at].op](left, right)
        except ConditionError as error:
            text = f"case {case_index}, condition {at}: {error}"
            raise ConditionError(error.code, text, case=case_index, condition=at) from error.__cause__


@dataclass(frozen=True, slots=True)
class NeedsTemplate:
    """A paused search for a case, which goes on once a template is rendered; see `protocol.PendingMatch`."""

    case: int
    condition: int
    side: Side
    template: JsonValue
    _run: _Match = field(repr=False)
    _left: JsonValue = field(default=None, repr=False)

    def resume(self, rendered: bytes) -> CaseMatch | NeedsTemplate | None:
        """Go on with the search for the first case that holds, now that the template is rendered.

        See `protocol.PendingMatch.resume`.
        """
        value = parse(rendered)
        if self.side == "left":
            return self._run.go_on(self.case, self.condition, value)
        return self._run.go_on(self.case, self.condition, self._left, value)


def compile_cases(data: bytes) -> CaseTable:
    """Parse a JSON array of cases into a table, to be matched later. Invalid cases are listed in the table's `skipped`.

    The planes' own workers ignore invalid cases too.
    """
    listed = parse(data)
    cases: list[Case] = []
    skipped: list[SkippedCase] = []
    for index, element in enumerate(listed if isinstance(listed, list) else ()):
        try:
            cases.append(_parse_case(element))
        except CaseError as error:
            skipped.append(SkippedCase(index, str(error)))
    return CaseTable(tuple(cases), tuple(skipped))


def _parse_case(value: JsonValue) -> Case:
    """Parse a case, {"when": [...], "then": ...}. As in the planes' own workers, the form [when, then] is valid too."""
    if isinstance(value, list):
        if len(value) != 2:
            raise CaseError("wrong_type", f"a positional case has 2 elements, found {len(value)}")
        when, then = value
    elif isinstance(value, dict):
        for name in ("when", "then"):
            if name not in value:
                raise CaseError("missing_field", f"{name} is missing")
        when, then = value["when"], value["then"]
    else:
        raise CaseError("wrong_type", f"expected an object, found {kind_name(value)}")
    if not isinstance(when, list):
        raise CaseError("wrong_type", f"when: expected an array of conditions, found {kind_name(when)}")
    conditions = tuple(parse_condition(element, f"when[{at}]") for at, element in enumerate(when))
    return Case(conditions, parse_action(then))


def parse_action(value: JsonValue) -> CaseAction:
    """Parse the `then` of a case, the action to take if the case holds.

    Args:
        value: an action's name, such as `continue`, or an object whose only key is the name
            (protocol/conditions.md#cases).

    Raises:
        CaseError: `wrong_type`, `missing_field`, `unknown_action`.
    """
    if isinstance(value, str):
        name, payload, is_bare = value, None, True
    elif isinstance(value, dict) and len(value) == 1:
        ((name, payload),) = value.items()
        is_bare = False
    else:
        found = f"an object of {len(value)} keys" if isinstance(value, dict) else kind_name(value)
        raise CaseError("wrong_type", f"then: expected an action's name or an object of one key, found {found}")
    if name not in _ACTIONS:
        raise CaseError("unknown_action", f"then: no action {quoted(name)}; one of {', '.join(_ACTIONS)}")
    if name == "continue":
        if payload is not None:
            raise CaseError("wrong_type", f"then.continue: expected null, found {kind_name(payload)}")
        return Continue()
    if not isinstance(payload, dict):
        found = "nothing" if is_bare else kind_name(payload)
        raise CaseError("wrong_type", f"then.{name}: expected an object, found {found}")
    return _with_payload(name, payload)


def _with_payload(name: str, payload: dict[str, JsonValue]) -> CaseAction:
    if name == "exit":
        return Exit(_text(payload, name, "status"), payload.get("data"))
    if name == "goto":
        return Goto(_text(payload, name, "step"))
    if name == "fail":
        return Fail(_text(payload, name, "message"))
    if name == "set_var":
        variable = _text(payload, name, "name")
        if "value" not in payload:
            raise CaseError("missing_field", "then.set_var.value is missing")
        return SetVar(variable, payload["value"])
    delay_ms = payload.get("delay_ms")
    if delay_ms is not None and not (type(delay_ms) is int and 0 <= delay_ms <= _U64_MAX):
        found = "a number" if type(delay_ms) in (int, float) else kind_name(delay_ms)
        raise CaseError("wrong_type", f"then.retry.delay_ms: expected whole milliseconds, found {found}")
    return Retry(delay_ms)


def _text(payload: dict[str, JsonValue], action: str, name: str) -> str:
    if name not in payload:
        raise CaseError("missing_field", f"then.{action}.{name} is missing")
    value = payload[name]
    if not isinstance(value, str):
        raise CaseError("wrong_type", f"then.{action}.{name}: expected a text, found {kind_name(value)}")
    return value
