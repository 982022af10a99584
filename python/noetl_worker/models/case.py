"""Values for the cases of a command: the actions of cases, skipped cases, and the decision
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
    """Position in the list of cases as the playbook has it."""
    reason: str


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """Result of evaluating the cases: the first case that holds, if any, and the skipped cases."""

    index: int | None = None
    """Position of the case that holds, counting only cases that parse, as the planes' own workers do. None if no case
    holds."""
    action: CaseAction | None = None
    skipped: tuple[SkippedCase, ...] = ()
