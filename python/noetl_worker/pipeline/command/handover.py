"""Return of commands to the stream, and the check that a claim still belongs to this worker.

A command is returned when the worker stops (`return_claimed`), or when this machine lacks resources
(`return_unstarted`). The command has not failed, so another worker may run it. A command that no worker could claim
again is reported as failed instead. When resources are lacking, a command with an old message is reported as failed
too.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from noetl_worker.errors import ClaimLost, ControlPlaneError, ResourceShortage
from noetl_worker.models import backoff
from noetl_worker.models.claim import (
    AlreadyFinished,
    AuthRefusedClaim,
    Claimed,
    ClaimRefused,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.disposition import Disposition, assert_never
from noetl_worker.models.report import Report
from noetl_worker.observability import metrics
from noetl_worker.pipeline.claim.claim import claim_command
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.identity import Identity

MAX_UNKNOWN_TRIES: Final = 10
log = structlog.get_logger("noetl_worker.handover")
_AGE_ADVICE: Final = (
    "set NOETL_COMMAND_REAPER_HEALTHY_HARD_TIMEOUT_SECONDS of the control plane above the longest timeout of commands. "
    "The plane gives a claim of this age to any worker, so the command may run twice. This worker still reports its "
    "outcome"
)


@dataclass(slots=True, eq=False, repr=False)
class ClaimOwnership:
    """The claim of one command. It tells whether the claim still belongs to this worker. Implements `Ownership`
    (report/sending.py)."""

    plane: Plane
    event_id: int
    worker_id: str
    log_ids: Callable[[], dict[str, object]]
    """Function that returns the command's ids for log lines."""
    claimed_at: float
    """Monotonic time of the claim."""
    is_expired: Callable[[float], bool]
    """Function that returns True if another worker may have the command at the given monotonic time."""
    lease_s: float
    """Seconds after the claim for which no other worker can get the command, even if this worker is dead."""

    @classmethod
    def unconfirmed(cls, plane: Plane, event_set: EventSet) -> ClaimOwnership:
        """Return a ClaimOwnership that asks the plane before the outcome is sent. It is used for an outcome that a dead
        process left behind, and for an outcome that is sent again."""
        return cls(
            plane, event_set.event_id, event_set.worker_id, event_set.log_ids, -math.inf, lambda _now: True, lease_s=0
        )

    def is_uncertain(self, now: float) -> bool:
        return now - self.claimed_at > self.plane.rules.claim_limit_s or self.is_expired(now)

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.claimed_at

    async def confirm(self) -> None:
        """Ask the plane which worker has the command, until the answer is clear. Raise ClaimLost if another worker has
        the command, or if the command is over.

        ClaimLost is also raised when the plane keeps refusing the claim, or keeps answering that it knows no such
        command (a lost or restored database). ClaimLost is not raised when the plane gave the command to another worker
        only because this worker's claim is old. Both workers then report, and the plane accepts the first outcome. If
        each worker gave up a command because its claim is old, a long command would never be reported.
        """
        tries = 0
        while True:
            claim = await claim_command(self.plane, self.event_id, self.worker_id)
            tries, now = tries + 1, time.monotonic()
            match claim:
                case Claimed() | HeldByThisWorker():
                    return
                case HeldByOther() if self.age_s > self.plane.rules.claim_limit_s and not self.is_expired(now):
                    log.warning("claim_taken_over", **self.log_ids(), age_s=round(self.age_s), advice=_AGE_ADVICE)
                    return
                case HeldByOther() | AlreadyFinished():
                    raise ClaimLost(claim)
                case NotFound() | ClaimRefused():
                    if tries >= MAX_UNKNOWN_TRIES:
                        raise ClaimLost(claim)
                case RetryLater() | AuthRefusedClaim():
                    pass
                case _:
                    assert_never(claim)
            delay_s = backoff.delay_s(tries, 0.5, acknowledge.MAX_DELAY_S, jitter=0.9)
            log.warning(
                "claim_unknown",
                **self.log_ids(),
                reason=claim.reason,
                next_try_s=round(delay_s, 2),
                advice="look at `reason`: the worker could not find out whether it still has the claim, and asks again",
            )
            await asyncio.sleep(delay_s)


async def return_unstarted(
    events: CommandEvents, identity: Identity, delivery: Delivery, short: ResourceShortage
) -> Disposition | None:
    """Return the nak for a command that had no effect yet when this machine lacked memory, processes or descriptors.
    Return None if the command must be reported as failed."""
    command, dialect = events.command, events.command.dialect
    metrics.RESOURCE_SHORTAGES.inc()
    disposition = acknowledge.short_of_resources(
        dialect,
        delivery.tries,
        delivery.age_s(),
        str(short),
        can_claim_again=identity.can_claim_again(dialect),
        is_started=not await events.withdraw(),
    )
    log.error(
        "resource_shortage",
        **command.log_ids(),
        error=str(short),
        returned=disposition is not None,
        advice="raise the limits of this process (open files, processes, memory), or set WORKER_MAX_CONCURRENT lower; "
        "fewer commands run at a time for a while",
    )
    return disposition


async def return_claimed(events: CommandEvents, identity: Identity, ownership: ClaimOwnership) -> Disposition:
    """Return the nak for a command that is unfinished when the worker stops. If no worker could claim the command again
    on this plane, report a failure of the command instead, and return the ack."""
    dialect = events.command.dialect
    if not identity.can_claim_again(dialect):
        text = (
            "interrupted: the worker stopped before the command was done: set WORKER_ID, so that a worker with "
            "the same id can run the command again"
        )
        failure = Report(status="error", context={"status": "error", "error": text}, error=text)
        try:
            await events.finish(failure, ownership)
            return acknowledge.REPORTED
        except ControlPlaneError as error:
            log.error(
                "interruption_not_reported",
                **events.command.log_ids(),
                error=repr(error),
                advice="set WORKER_ID for the next time, and start the execution again if it stays RUNNING: without "
                "WORKER_ID no worker can run this command again",
            )
    return acknowledge.interrupted(dialect, ownership.age_s, ownership.lease_s)
