"""What becomes of a command when the worker stops, or when it may have passed to another worker.

Interrupted is not failed, and told is told: a stop never adds a second outcome to one that is on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from noetl_worker import acknowledge
from noetl_worker.claim import claim_command
from noetl_worker.control_plane.client import Plane
from noetl_worker.errors import ClaimLost, ControlPlaneError
from noetl_worker.events import CommandEvents
from noetl_worker.identity import Identity
from noetl_worker.models import (
    AlreadyFinished,
    Claimed,
    ClaimOutcome,
    Dialect,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    Outcome,
    Refused,
    Report,
    RetryLater,
)

__all__ = ["ClaimedOnce", "finish_claim", "finish_telling", "give_back"]

GRACE_S: Final = 3.0
"""How long a request that is under way may take after the drain is over."""
MAX_UNKNOWN_TRIES: Final = 10
PYTHON_HARD_LIMIT_S: Final = 1700.0
"""The Python plane gives a claim of 1,800 s to another worker, whatever the holder's health (wire.md 3.2)."""
log = structlog.get_logger("noetl_worker.handover")


async def finish_claim(
    claiming: asyncio.Future[tuple[Plane | None, ClaimOutcome]],
) -> tuple[Plane | None, ClaimOutcome]:
    """The answer of a claim that was under way when the stop came; RetryLater when none comes in time."""
    done, _ = await asyncio.wait({claiming}, timeout=GRACE_S)
    if done:
        return claiming.result()
    claiming.cancel()
    return None, RetryLater("stopped while the claim was under way")


async def finish_telling(telling: asyncio.Future[Outcome], plane: Plane, ownership: ClaimedOnce) -> Outcome:
    """Let the terminal set that is on its way be accepted; never start another one beside it."""
    done, _ = await asyncio.wait({telling}, timeout=GRACE_S)
    if done:
        return telling.result()
    telling.cancel()
    await asyncio.wait({telling})
    return acknowledge.interrupted(plane.dialect, ownership.age_s, ownership.lease_s)


class ClaimedOnce:
    """Whether a command that this process has claimed is still ours (emitter.Ownership).

    Args:
        is_expired: the delivery was without in_progress for longer than ack_wait.
        lease_s: how long a claim is the holder's, whatever became of it.
    """

    def __init__(
        self, plane: Plane, event_id: int, worker_id: str, *, is_expired: Callable[[], bool], lease_s: float
    ) -> None:
        self._plane = plane
        self._event_id = event_id
        self._worker_id = worker_id
        self._is_expired = is_expired
        self.lease_s = lease_s
        self._claimed_at = time.monotonic()

    def in_doubt(self) -> bool:
        too_old = self._plane.dialect is Dialect.PYTHON and self.age_s > PYTHON_HARD_LIMIT_S
        return too_old or self._is_expired()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._claimed_at

    async def confirm(self) -> None:
        """Ask whose the command is, for as long as it takes to know. Raises ClaimLost when it is not ours.

        Also when the plane says again and again that it knows no such command (a database that was lost or restored):
        its outcome would be asked about for ever.
        """
        tries = 0
        while True:
            claim = await claim_command(self._plane, self._event_id, self._worker_id)
            if isinstance(claim, Claimed | HeldByThisWorker):
                return
            if isinstance(claim, HeldByOther | AlreadyFinished):
                raise ClaimLost(claim)
            tries += 1
            if isinstance(claim, NotFound | Refused) and tries >= MAX_UNKNOWN_TRIES:
                raise ClaimLost(claim)
            delay_s = acknowledge.backoff_s(tries, 0.5)
            log.warning("claim_unknown", event_id=self._event_id, reason=claim.reason, next_try_s=round(delay_s, 2))
            await asyncio.sleep(delay_s)


async def give_back(events: CommandEvents, identity: Identity, ownership: ClaimedOnce) -> Outcome:
    """A command that was not done. On a plane where nobody could take it up again, it is told as failed."""
    dialect = events.command.dialect
    if not identity.can_return(dialect):
        text = "interrupted: the worker stopped before the command was done (set WORKER_ID to have it taken up again)"
        failure = Report(status="error", context={"status": "error", "error": text}, error=text)
        try:
            await asyncio.wait_for(events.finish(failure, ownership), GRACE_S)
            return acknowledge.reported()
        except (asyncio.TimeoutError, ControlPlaneError) as error:
            log.error("interrupted_not_told", command_id=events.command.command_id, error=repr(error))
    return acknowledge.interrupted(dialect, ownership.age_s, ownership.lease_s)
