"""What becomes of a command when the worker stops, or when it may have passed to another worker.

Interrupted is not failed, and told is told: a stop never adds a second outcome to one that is on its way.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import structlog

from noetl_worker import acknowledge
from noetl_worker.claim import claim_command
from noetl_worker.control_plane.client import Plane
from noetl_worker.errors import ServerRefused
from noetl_worker.events import CommandEvents
from noetl_worker.identity import Identity
from noetl_worker.models import (
    AlreadyFinished,
    Claimed,
    ClaimOutcome,
    Dialect,
    Envelope,
    HeldByOther,
    HeldByThisWorker,
    Outcome,
    Report,
    RetryLater,
)
from noetl_worker.observability import metrics

__all__ = ["finish_claim", "finish_telling", "give_back", "may_be_reclaimed", "taken_by_other"]

GRACE_S: Final = 3.0
"""How long a request that is under way may take after the drain is over."""
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


async def finish_telling(telling: asyncio.Future[Outcome], plane: Plane, claim_age_s: float) -> Outcome:
    """Let the terminal set that is on its way be accepted; never start another one beside it."""
    done, _ = await asyncio.wait({telling}, timeout=GRACE_S)
    if done:
        return telling.result()
    telling.cancel()
    await asyncio.wait({telling})
    return acknowledge.interrupted(plane.dialect, claim_age_s)


async def give_back(events: CommandEvents, identity: Identity, *, claim_age_s: float) -> Outcome:
    """A command that was not done. On a plane where nobody could take it up again, it is told as failed."""
    dialect = events.command.dialect
    if not identity.can_return(dialect):
        text = "interrupted: the worker stopped before the command was done (set WORKER_ID to have it taken up again)"
        failure = Report(status="error", context={"status": "error", "error": text}, error=text)
        try:
            await asyncio.wait_for(events.finish(failure), GRACE_S)
            return acknowledge.reported()
        except (asyncio.TimeoutError, ServerRefused) as error:
            log.error("interrupted_not_told", command_id=events.command.command_id, error=repr(error))
    return acknowledge.interrupted(dialect, claim_age_s)


def may_be_reclaimed(plane: Plane, claimed_at: float) -> bool:
    """Whether the plane may have given the claim away for its age alone."""
    return plane.dialect is Dialect.PYTHON and time.monotonic() - claimed_at > PYTHON_HARD_LIMIT_S


async def taken_by_other(plane: Plane, envelope: Envelope, identity: Identity) -> ClaimOutcome | None:
    """Ask whose the command is, for as long as it takes to know; None when it is still ours."""
    tries = 0
    while True:
        claim = await claim_command(plane, envelope, identity.name_for(plane.dialect))
        if isinstance(claim, Claimed | HeldByThisWorker):
            return None
        if isinstance(claim, HeldByOther | AlreadyFinished):
            metrics.OUTCOMES_DROPPED.inc()
            log.warning("outcome_dropped", command_id=envelope.command_id, reason=claim.reason)
            return claim
        tries += 1
        delay_s = acknowledge.backoff_s(tries, 0.5, draw=random.random)
        log.warning("claim_unknown", command_id=envelope.command_id, reason=claim.reason, next_try_s=round(delay_s, 2))
        await asyncio.sleep(delay_s)
