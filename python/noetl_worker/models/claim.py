"""Possible meanings of a plane's answer to a claim (`pipeline/claim/claim.py` reads the answers)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)  # not frozen: one is made per command, and freezing costs time
class Claimed:
    """Answer to a claim: the command now belongs to this worker."""

    body: Mapping[str, JsonValue]
    """The plane's answer, with the command."""
    marks: Marks = ALL
    """Flags that tell what the answer may contain: templates, references, secrets."""
    size: int = 0
    """Size of the answer in bytes."""


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """Answer to a claim: the command has already ended, alone or because its whole execution ended. The worker acks the
    message and runs nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """Answer to a claim: another worker has the command. That worker may die, so the message stays in the stream."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class HeldByThisWorker:
    """Answer to a claim: the command was already claimed with this worker's id. The command runs in this process, or an
    earlier process with the same id claimed it."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Answer to a claim: a temporary failure. The command is locked, or the plane is busy or unreachable."""

    reason: str
    retry_after_s: float | None = None
    is_server_error: bool = False


@dataclass(frozen=True, slots=True)
class AuthRefusedClaim:
    """Answer 401 or 403 to a claim. No claim will succeed until the setting with the credential is corrected."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """Answer to a claim: the plane has no record of the command. The record may appear later, for example after the
    plane's database was restored."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """Answer to a claim: the claim is refused for good. The notification becomes a dead letter, with this reason."""

    reason: str


ClaimAnswer: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | ClaimRefused
)
