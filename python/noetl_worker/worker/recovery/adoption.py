"""Reporting of outcomes that dead worker processes of this machine left in their outboxes. Each outcome is reported
with the dead worker's id.

The plane is first asked for the claim, with the dead worker's id. If another worker has the command, or the command is
over, the outcome is dropped. Until the outcome is reported, the command counts as in flight, so that a delivery of the
command does not run it. Outcomes that the Python plane has accepted and lost are sent again in the same way
(worker/recovery/recent_batches.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from noetl_worker.errors import ClaimLost, ControlPlaneError, Interrupted
from noetl_worker.observability import metrics
from noetl_worker.pipeline.command.handover import ClaimOwnership
from noetl_worker.pipeline.delivery.in_flight import NO_MESSAGE, InFlight
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import OutboxRow
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.process import event_loop
from noetl_worker.process.threads import OWNER
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.worker.recovery.batch_events import was_never_processed
from noetl_worker.worker.recovery.recent_batches import LOOK_ADVICE, STOPPED, LostOutcome, RecentBatches, not_rescued

log = structlog.get_logger("noetl_worker.pipeline.outbox")
_ADOPTED_ADVICE: Final = "do nothing: a worker that ended left these on disk, and they are sent now"
_REFUSED_ADVICE: Final = (
    "look at `error`, and start the execution again if it stays RUNNING: this outcome is dropped, and the command runs "
    "again only if its message is redelivered"
)
AT_ONCE: Final = 8
"""Largest number of outcomes that are sent to one address at the same time. Without this limit, ten thousand outcomes
blocked the loop for seconds. Large results of several full outboxes filled the memory."""


class Adoption:
    """Sends the outcomes that dead worker processes left on disk. Also sends again the outcomes that a plane has lost.

    Args:
        batches: queues the outcomes that a plane lost.
    """

    def __init__(
        self, client: ControlPlaneClient, emitter: Emitter, in_flight: InFlight, batches: RecentBatches | None = None
    ) -> None:
        self._client = client
        self._emitter = emitter
        self._in_flight = in_flight
        self._waiting: dict[str, deque[OutboxRow]] = defaultdict(deque)
        """Outcomes still to be sent, as rows of the outbox: one queue for each address to which requests go. While one
        address is down, the queues of the other addresses are sent."""
        self._senders: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        if batches is not None:
            self._begin(self._resend(batches.lost))

    def adopt(self) -> None:
        """Take over the unreported outcomes of worker processes that have died, and start to send them to the plane."""
        rows = self._emitter.outbox.adopt()
        for row in rows:
            self._in_flight.enter(row.command_id, NO_MESSAGE)
            self._waiting[row.place].append(row)
        if rows:
            size = sum(row.size for row in rows)
            log.warning("outcomes_adopted", count=len(rows), bytes=size, advice=_ADOPTED_ADVICE)
        for place in self._waiting:
            self._go_on(place)

    async def stop(self) -> None:
        """Stop sending. Outcomes that are not reported yet stay in the outbox, for the next worker."""
        for waiting in self._waiting.values():
            for row in waiting:
                self._in_flight.leave(row.command_id, NO_MESSAGE)
            waiting.clear()
        await event_loop.end(*self._tasks)

    def _go_on(self, place: str) -> None:
        waiting = self._waiting[place]
        for _ in range(min(len(waiting), AT_ONCE - self._senders[place])):
            self._senders[place] += 1
            self._begin(self._send_all(place, waiting))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_all(self, place: str, waiting: deque[OutboxRow]) -> None:
        """Send the outcomes of the queue `waiting`, one after another, until the queue is empty. `place` is the address
        to which all of them go, such as a plane. Up to AT_ONCE such tasks share one queue."""
        try:
            while waiting:
                await self._take(waiting.popleft())
                await asyncio.sleep(0)  # an unreadable row takes no time, and there may be thousands
        finally:
            self._senders[place] -= 1
            self._go_on(place)  # if a bug with one row ends this task, another task goes on

    async def _take(self, row: OutboxRow) -> None:
        try:
            event_set = self._emitter.outbox.load(row.key)
            if event_set is not None:
                OWNER.set(event_set.execution_id)
                log.warning("outcome_adopted", **event_set.log_ids(), of=event_set.worker_id, advice=_ADOPTED_ADVICE)
                await self._report(event_set)
        finally:
            self._in_flight.leave(row.command_id, NO_MESSAGE)

    async def _report(self, event_set: EventSet) -> None:
        try:
            url = self._client.servers.choose_url(
                event_set.server_url
            )  # the dead worker may have trusted other servers
            plane = Plane(self._client, url, event_set.dialect)
            ownership = ClaimOwnership.unconfirmed(plane, event_set)
            if event_set.rescues is not None:  # the set is sent without asking for the claim only if the plane agrees
                event_set.is_rescue = await was_never_processed(plane, event_set.rescues, event_set)
            await self._emitter.deliver(plane, event_set, ownership)
        except (ClaimLost, Interrupted):
            pass  # logged by the emitter, or left to the next worker
        except ControlPlaneError as error:
            # The plane refused it for good. If the command's message was not acknowledged, it is redelivered. The
            # message of a batch that the plane has lost was acknowledged, so nothing runs its command again.
            metrics.EVENT_EMIT_FAILED.inc()
            self._emitter.outbox.drop(event_set)
            log.error("adopted_outcome_refused", **event_set.log_ids(), error=str(error), advice=_REFUSED_ADVICE)
        else:
            self._in_flight.finish(event_set.command_id)
            log.info("adopted_outcome_reported", **event_set.log_ids())

    # ── what a plane has lost ──

    async def _resend(self, lost: asyncio.Queue[LostOutcome]) -> None:
        while True:
            work = self._begin(self._send_again(await lost.get()))
            work.add_done_callback(lambda _: lost.task_done())

    async def _send_again(self, lost: LostOutcome) -> None:
        """Send again an outcome that the plane has lost. First ask for the command's claim, because another worker may
        have the command by now. No claim is needed if the plane stored the outcome but will never process it, because
        no other worker can then get the command."""
        plane, end, batch = lost
        OWNER.set(end.execution_id)
        self._emitter.outbox.write(end)  # so that another process sends it if this one dies
        try:
            await self._emitter.deliver(plane, end, ClaimOwnership.unconfirmed(plane, end))
        except ClaimLost:
            pass  # logged by the emitter
        except (Interrupted, asyncio.CancelledError) as stopped:
            if not self._emitter.outbox.has(end):  # no other worker will send it
                not_rescued(end, batch, LOOK_ADVICE, STOPPED)
            if isinstance(stopped, asyncio.CancelledError):
                raise
        except ControlPlaneError as error:
            not_rescued(end, batch, LOOK_ADVICE, str(error))
