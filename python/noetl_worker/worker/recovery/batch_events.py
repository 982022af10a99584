"""Events in an execution's event log that show what became of batches. A batch is the events of one request, which the
Python plane accepts first and processes later.

A `command.completed` event names the worker that ran the command (recorded). No recording shows a `command.failed`
event, so this module expects the worker's name there too. A `command.failed` event without the name is ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.wire import context_of, has_next_page, read_events
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.patience import retry_while_passing

T = TypeVar("T")
_PAGE: Final = 200
_UNKNOWN_ADVICE: Final = "do nothing: the worker goes on by the plane's other answers about this command"
log = structlog.get_logger("noetl_worker.events")


async def ask_about_batch(what: str, ask: Callable[[], Awaitable[T | None]], event_set: EventSet) -> T | None:
    """Call `ask`, which asks the plane about a batch of events, and return the answer. Retry after temporary errors.
    After any other error, log a warning and return None.

    Args:
        what: the subject of the question, for the log.
        event_set: the outcome that the batch belongs to.
    """
    try:
        return await retry_while_passing(what, ask, ids=event_set.log_ids)
    except ControlPlaneError as error:
        log.warning("batch_state_unknown", **event_set.log_ids(), error=str(error), advice=_UNKNOWN_ADVICE)
        return None


async def was_never_processed(plane: Plane, batch: str, event_set: EventSet) -> bool:
    """Return whether the plane says that it will never process a batch.

    Args:
        event_set: the outcome that the batch belongs to.
    """
    state = await ask_about_batch("the state of a batch", partial(plane.batch_state, batch), event_set)
    return state is not None and state.was_never_processed


class BatchEvents:
    """The newest events about batches in one execution. The events of each type are fetched once, when first needed."""

    def __init__(self, plane: Plane, execution_id: int) -> None:
        self._plane, self._execution_id = plane, execution_id
        self._known: dict[str, Mapping[str, Any]] = {}

    async def has(self, event_type: str, batch: str) -> bool | None:
        """Return whether the plane has an event of this type about the batch. Return None if this is unknown, because
        the plane has shown only newer events."""
        events, has_more = await self._newest(event_type)
        if any(context_of(event).get("request_id") == batch for event in events):
            return True
        # The id of a batch is lower than the ids of its events.
        return None if has_more and min(int(event["event_id"]) for event in events) > int(batch) else False

    async def batches(self, event_type: str) -> list[str]:
        """Return the batch ids in the newest events of this type. They include batches of other workers."""
        events, _ = await self._newest(event_type)
        return [str(context_of(event).get("request_id")) for event in events]

    async def find_batch(self, event_set: EventSet) -> str | None:
        """Return the id of the batch by which the plane stored the terminal event of the same command and worker as in
        `event_set`. Return None if the fetched events show no such batch."""
        stored, _ = await self._newest(event_set.next_request.last)
        claim = {"command_id": str(event_set.command_id), "worker_id": event_set.worker_id}
        for event in stored:
            if {name: str(context_of(event).get(name)) for name in claim} == claim:
                batches, _ = await self._newest("batch.accepted")
                holders = [one for one in map(context_of, batches) if event["event_id"] in (one.get("event_ids") or ())]
                return str(holders[0].get("request_id")) if holders else None
        return None

    async def _newest(self, event_type: str) -> tuple[list[dict[str, Any]], bool]:
        """Return the newest events of a type, the newest first, and whether the plane has older events."""
        answer = self._known.get(event_type)
        if answer is None:
            answer = self._known[event_type] = await self._plane.list_events(
                self._execution_id, event_type=event_type, page_size=_PAGE
            )
        return read_events(answer), has_next_page(answer)
