"""Outcomes that dead processes of this machine left in their outboxes, reported in their name.

The claim is asked first with the dead one's id: a command that was taken up by somebody else, or is over, is theirs.
Until it is reported the command counts as in flight here, so that a delivery of it runs nothing. So is sent again what
the Python plane has lost after it had accepted it (worker/recovery/recent_batches.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import structlog

from noetl_worker.errors import ClaimLost, ControlPlaneError, Interrupted
from noetl_worker.observability import metrics
from noetl_worker.pipeline.command.handover import ClaimedOnce
from noetl_worker.pipeline.delivery.in_flight import NO_MESSAGE, InFlight
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import OutboxRow
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.process import event_loop
from noetl_worker.process.threads import OWNER
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.patience import until_it_passes
from noetl_worker.worker.recovery.recent_batches import LOOK_ADVICE, STOPPED, LostEnd, RecentBatches, not_rescued

log = structlog.get_logger("noetl_worker.pipeline.outbox")
AT_ONCE: Final = 8
"""Sets for one place that are read and sent at the same time: ten thousand, or the large results of several full
outboxes, would take the loop for seconds and the memory of all of them (seen)."""


class Adoption:
    """Takes over what is left, at the start and whenever it is looked for again; `batches` says what a plane lost."""

    def __init__(
        self, client: ControlPlaneClient, emitter: Emitter, in_flight: InFlight, batches: RecentBatches | None = None
    ) -> None:
        self._client = client
        self._emitter = emitter
        self._in_flight = in_flight
        self._waiting: dict[str, deque[OutboxRow]] = defaultdict(deque)
        """By the place they have to go to: one that is down must not hold up the others."""
        self._senders: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        if batches is not None:
            self._begin(self._resend(batches.lost))

    def look(self) -> None:
        """Adopt the sets of processes that are dead by now, and begin to send them."""
        rows = self._emitter.outbox.adopt()
        for row in rows:
            self._in_flight.enter(row.command_id, NO_MESSAGE)
            self._waiting[row.place].append(row)
        if rows:
            log.warning("outcomes_adopted", count=len(rows), bytes=sum(row.size for row in rows))
        for place in self._waiting:
            self._go_on(place)

    async def stop(self) -> None:
        """What is not reported yet is in the outbox, for the next worker."""
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
        """What waits for a place, one after another; AT_ONCE of these share it."""
        try:
            while waiting:
                await self._take(waiting.popleft())
                await asyncio.sleep(0)  # a row that cannot be read is done with at once, and there may be thousands
        finally:
            self._senders[place] -= 1
            self._go_on(place)  # a row that a bug ends this with holds up no other one

    async def _take(self, row: OutboxRow) -> None:
        try:
            event_set = self._emitter.outbox.load(row.key)
            if event_set is not None:
                OWNER.set(event_set.execution_id)
                log.warning("outcome_adopted", **event_set.who(), of=event_set.worker_id)
                await self._report(event_set)
        finally:
            self._in_flight.leave(row.command_id, NO_MESSAGE)

    async def _report(self, event_set: EventSet) -> None:
        try:
            url = self._client.servers.to_ask(event_set.server_url)  # the one who wrote it may have trusted others
            plane = Plane(self._client, url, event_set.dialect)
            ownership = ClaimedOnce.asked_first(plane, event_set)
            await _confirm_rescue(plane, event_set)
            await self._emitter.deliver(plane, event_set, ownership)
        except (ClaimLost, Interrupted):
            pass  # the emitter has logged it, or has left it to the next worker
        except ControlPlaneError as error:
            # Refused for good. The dead one never acknowledged its message: the command comes again by the queue.
            metrics.EVENT_EMIT_FAILED.inc()
            self._emitter.outbox.drop(event_set)
            log.error("adopted_outcome_refused", **event_set.who(), error=str(error))
        else:
            self._in_flight.finish(event_set.command_id)
            log.info("adopted_outcome_reported", **event_set.who())

    # ── what a plane has lost ──

    async def _resend(self, lost: asyncio.Queue[LostEnd]) -> None:
        while True:
            work = self._begin(self._send_again(await lost.get()))
            work.add_done_callback(lambda _: lost.task_done())

    async def _send_again(self, lost: LostEnd) -> None:
        """Its claim is asked first, as for all that is late; a rescue is for a command that nobody else gets."""
        plane, end, batch = lost
        OWNER.set(end.execution_id)
        self._emitter.outbox.keep(end)  # as an outcome that no plane has: until it is sent it outlives this process
        try:
            await self._emitter.deliver(plane, end, ClaimedOnce.asked_first(plane, end))
        except ClaimLost:
            pass  # the emitter has logged it
        except (Interrupted, asyncio.CancelledError) as stopped:
            if not self._emitter.outbox.has(end):  # nobody else will send it
                not_rescued(end, batch, LOOK_ADVICE, STOPPED)
            if isinstance(stopped, asyncio.CancelledError):
                raise
        except ControlPlaneError as error:
            not_rescued(end, batch, LOOK_ADVICE, str(error))


async def _confirm_rescue(plane: Plane, event_set: EventSet) -> None:
    """A row may say that its batch was never processed; only the plane knows. Else its claim is asked, as for all."""
    if event_set.rescues is None:
        return
    try:
        state = await until_it_passes(
            "the state of a batch", partial(plane.batch_state, event_set.rescues), ids=event_set.who
        )
    except ControlPlaneError as error:
        log.warning("batch_state_unknown", **event_set.who(), error=str(error))
        return
    event_set.is_rescue = state.was_never_processed
