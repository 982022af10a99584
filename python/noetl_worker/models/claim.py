"""Possible meanings of a plane's answer to a claim (`pipeline/claim/claim.py` reads the answers)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)  # not frozen: one is made per command, and freezing costs time
class Claimed:
    """A command that this worker now has."""

    body: Mapping[str, JsonValue]
    """The plane's answer, with the command."""
    marks: Marks = ALL
    """Marks of what the answer may contain."""
    size: int = 0
    """Bytes of the answer."""


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """A command that is over, alone or with its whole execution. Nothing is left to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """A command that another worker has. That worker may die, so the message stays in the stream."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class HeldByThisWorker:
    """A command that was already claimed with this worker's id. It runs here, or an earlier process claimed it."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """A temporary failure: the command is locked, or the plane is busy or unreachable."""

    reason: str
    retry_after_s: float | None = None
    is_server_error: bool = False


@dataclass(frozen=True, slots=True)
class AuthRefusedClaim:
    """An answer 401 or 403. No claim will succeed until the setting with the credential is corrected."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """A command that the plane does not know, or does not know yet, as after a restored database."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """A refusal for good. The notification becomes a dead letter with the plane's answer."""

    reason: str


ClaimAnswer: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | ClaimRefused
)
