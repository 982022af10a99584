"""Possible outcomes of a claim (`pipeline/claim/claim.py` maps the plane's answers to them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)  # not frozen, as ToolResult
class Claimed:
    """A command that is now ours."""

    body: Mapping[str, JsonValue]
    """The plane's answer."""
    marks: Marks = ALL


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """A command that is over, alone or with its whole execution. Nothing is left to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """A command that another worker has. That worker may die, so the message stays in the queue."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class HeldByThisWorker:
    """A command already started under this worker's id: in flight here, or lost in a crash or with an answer."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """A temporary failure: a lock, a busy plane or an unreachable one."""

    reason: str
    retry_after_s: float | None = None
    is_server_error: bool = False


@dataclass(frozen=True, slots=True)
class AuthRefusedClaim:
    """An answer 401 or 403: no claim will succeed until the credential setting is corrected."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """A command that the plane does not know, or not yet: a restored database, a lagging replica, or a bad message."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """A refusal that no further try can change: the notification becomes a dead letter with the plane's answer."""

    reason: str


ClaimAnswer: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | ClaimRefused
)
