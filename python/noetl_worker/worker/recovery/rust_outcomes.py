"""Handling of terminal events on the Rust plane. The worker chooses the id of a command's last event, so that the plane
cannot store this event twice. If the request with this event was cut off, the plane may have issued no next command. So
the worker watches whether the execution goes on."""

from __future__ import annotations

import structlog

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response
from noetl_worker.worker.recovery.execution_watch import ExecutionWatch, is_stored

log = structlog.get_logger("noetl_worker.events")


class RustOutcomes:
    """Handler of terminal events on the Rust plane. It chooses the id of a command's last event, so that the plane
    cannot store this event twice. If the request with this event was cut off, the plane may have issued no next
    command. So the handler watches whether the execution goes on."""

    dialect = Dialect.RUST

    def __init__(self, ids: EventIds) -> None:
        self._ids = ids
        self._watch = ExecutionWatch()

    def assign_event_id(self, event_set: EventSet) -> None:
        if event_set.has_own_id and not event_set.own_id:
            event_set.own_id = self._ids.next_above(event_set.above)

    async def judge_by_records(
        self, plane: Plane, event_set: EventSet, answer: Response, how: SendStatus
    ) -> SendStatus:
        """Decide what it means that the plane refused this terminal event because the event's id exists already.

        Return ACCEPTED if the plane has this very event: a proxy has sent the request twice. Otherwise the id belongs
        to another event, so choose a new id and return UNCERTAIN: the event is sent again.
        """
        del answer, how
        if await is_stored(plane, event_set):
            return SendStatus.ACCEPTED
        event_set.own_id, event_set.was_tried = self._ids.next_above(event_set.own_id), False
        return SendStatus.UNCERTAIN

    def accepted(self, plane: Plane, event_set: EventSet, answer: Response) -> None:
        if (
            answer.status >= 300 and event_set.has_own_id
        ):  # the plane has the event already: an earlier request was cut off
            self._watch.watch(plane, event_set)

    async def is_stored(self, plane: Plane, event_set: EventSet) -> bool:
        if not event_set.has_own_id:
            return False
        log.info("outcome_already_stored", **event_set.log_ids())
        self._watch.watch(plane, event_set)
        event_set.accepted(None)
        return True

    async def stop(self) -> None:
        await self._watch.stop()
