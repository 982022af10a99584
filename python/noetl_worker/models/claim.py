"""What a claim can come to (`pipeline/claim/claim.py` has the table)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)  # not frozen, as ToolResult
class Claimed:
    """Ours. `body` is the plane's answer."""

    body: Mapping[str, JsonValue]
    marks: Marks = ALL


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """The command, or its whole execution, is over: nothing is left to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """Another worker has it. It may die, so the message stays in the queue."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class HeldByThisWorker:
    """This very id has reported `command.started`: in flight here, or lost in a crash or a lost answer."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """A passing trouble: a lock, a busy or unreachable plane."""

    reason: str
    retry_after_s: float | None = None
    is_server_error: bool = False


@dataclass(frozen=True, slots=True)
class AuthRefusedClaim:
    """401 or 403: no claim will succeed before the credential setting is mended."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """Nobody knows the command (yet): a restored database, a replica behind, or poison."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """It can never be claimed like this: set it aside with the answer."""

    reason: str


ClaimOutcome: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | ClaimRefused
)
