"""Recovery of terminal events that the Python plane does not process. This plane may store a batch (the events of one
request) and never process it. The worker then sends a replacement for the batch (protocol/batches.md#rescue)."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.python.batch_state import unqueued_batch
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response
from noetl_worker.worker.recovery.batch_events import BatchEvents, ask_about_batch, was_never_processed
from noetl_worker.worker.recovery.recent_batches import RecentBatches, rescue

log = structlog.get_logger("noetl_worker.events")


class PythonOutcomes:
    """Handler of terminal events on the Python plane. It remembers the event batches that the plane has accepted, and
    replaces batches that the plane never processes."""

    dialect = Dialect.PYTHON

    def __init__(self, batches: RecentBatches) -> None:
        self._batches: Final = batches

    def assign_event_id(self, event_set: EventSet) -> None:
        pass  # the plane makes the ids

    async def judge_by_records(
        self, plane: Plane, event_set: EventSet, answer: Response, how: SendStatus
    ) -> SendStatus:
        """Find out whether the plane has stored the batch of these events and will never process the batch. If so, turn
        `event_set` into a replacement for the batch, which is sent next.

        The plane reports such a batch by an answer 503. If this answer was lost, the plane answers "duplicate" to the
        next try with the same key. The state of the batch then shows whether the plane will process the events.
        """
        body = answer.json()
        batch = unqueued_batch(body) or str(body.get("request_id"))
        if how is SendStatus.DUPLICATE and not await was_never_processed(plane, batch, event_set):
            return SendStatus.ACCEPTED
        return SendStatus.PASSING if rescue(plane, event_set, batch) else SendStatus.ACCEPTED

    def accepted(self, plane: Plane, event_set: EventSet, answer: Response) -> None:
        self._batches.accepted(plane, event_set, answer.json())

    async def is_stored(self, plane: Plane, event_set: EventSet) -> bool:
        events = BatchEvents(plane, event_set.execution_id)
        batch = await ask_about_batch("the batch of an outcome", partial(events.find_batch, event_set), event_set)
        if batch is None:
            return False
        log.info("outcome_already_stored", **event_set.log_ids(), batch=batch)
        if not await was_never_processed(
            plane, batch, event_set
        ):  # RecentBatches finds out if the plane loses it later
            self._batches.accepted(plane, event_set, {"request_id": batch, "duplicate": True})
        elif rescue(plane, event_set, batch):
            return True
        event_set.accepted(None)
        return True

    async def stop(self) -> None:
        await self._batches.stop()
