"""Values for the cases (when/then) of a command: the actions a case can choose, invalid cases, and the decision
(protocol/conditions.md#cases)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from noetl_worker.models.wire import JsonValue


@dataclass(frozen=True, slots=True)
class Continue:
    pass


@dataclass(frozen=True, slots=True)
class Exit:
    status: str
    data: JsonValue = None


@dataclass(frozen=True, slots=True)
class SetVar:
    name: str
    value: JsonValue


@dataclass(frozen=True, slots=True)
class Goto:
    step: str


@dataclass(frozen=True, slots=True)
class Retry:
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    message: str


CaseAction: TypeAlias = Continue | Exit | SetVar | Goto | Retry | Fail


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that does not parse. The planes' own workers drop it silently; this worker counts and reports it."""

    index: int
    """Position of the skipped case in the playbook's list of cases."""
    reason: str


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """Result of evaluating the cases: the first case whose conditions hold, if any, and the skipped cases."""

    index: int | None = None
    """Position of the first case whose conditions hold, counting only cases that parse, as the planes' own workers do.
    None if there is no such case."""
    action: CaseAction | None = None
    skipped: tuple[SkippedCase, ...] = ()
