"""Outcomes that a dead process of this machine left in its outbox, told in its name.

The claim is asked first with the dead one's id: a command that was taken up by somebody else, or is over, is theirs.
Meanwhile the command counts as in flight here, so that a delivery of it runs nothing.
"""

from __future__ import annotations

import asyncio

import structlog

from noetl_worker.control_plane.client import ControlPlaneClient, Plane
from noetl_worker.emitter import Emitter
from noetl_worker.errors import ClaimLost, ControlPlaneError
from noetl_worker.event_set import EventSet
from noetl_worker.handover import ClaimedOnce
from noetl_worker.in_flight import InFlight
from noetl_worker.observability import metrics

__all__ = ["Adoption"]

log = structlog.get_logger("noetl_worker.outbox")
_NO_MESSAGE = 0
"""Stream sequence of no delivery: one that comes for an adopted command is another message for it."""


class Adoption:
    """Takes over what is left, at the start and whenever it is looked for again."""

    def __init__(self, client: ControlPlaneClient, emitter: Emitter, in_flight: InFlight) -> None:
        self._client = client
        self._emitter = emitter
        self._in_flight = in_flight
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Adopt the sets of processes that are dead by now, and begin to tell them."""
        for event_set in self._emitter.outbox.adopt():
            log.warning("outcome_adopted", **event_set.who(), of=event_set.worker_id)
            task = asyncio.ensure_future(self._tell(event_set))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """What is not told yet stays in the outbox, for the next worker."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _tell(self, event_set: EventSet) -> None:
        with self._in_flight.entered(event_set.command_id, _NO_MESSAGE):
            try:
                plane = Plane(self._client, event_set.server_url, event_set.dialect)
                for event_id in (event_set.event_id, *event_set.own_ids):
                    self._emitter.ids.observe(event_id)  # what is told next must be above them (wire.md 9.3, item 5)
                ownership = ClaimedOnce(
                    plane, event_set.event_id, event_set.worker_id, is_expired=lambda: True, lease_s=0
                )
                await self._emitter.deliver(plane, event_set, ownership)
            except ClaimLost as lost:
                metrics.OUTCOMES_DROPPED.inc()
                log.warning("outcome_dropped", **event_set.who(), reason=lost.claim.reason)
            except ControlPlaneError as error:
                # Refused for good. The dead one never acknowledged its message: the command comes again by the queue.
                metrics.EVENT_EMIT_FAILED.inc()
                self._emitter.outbox.drop(event_set)
                log.error("adopted_outcome_refused", **event_set.who(), error=str(error))
            else:
                self._in_flight.finish(event_set.command_id)
                log.info("adopted_outcome_told", **event_set.who())
