"""Detection of executions that stopped because the report of an outcome was cut off.

The Rust plane issues the next commands inside the request that reports an outcome. If this request is cut off, the
plane drops the next commands (protocol/events.md#rust-plane). The plane then has the outcome, but the execution stays
RUNNING for ever, and another request changes nothing. A worker cannot repair the execution, so it logs an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import structlog

from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.wire import context_of, read_events
from noetl_worker.observability import metrics
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.process import event_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.patience import is_passing, retry_while_passing
from noetl_worker.remote.plane.rules import ENDS

STANDING_STILL_S: Final = 60.0
log = structlog.get_logger("noetl_worker.events")


class ExecutionWatch:
    """Watches executions until they end or stand still: RUNNING, with no open command and no new event for
    STANDING_STILL_S. An execution that stands still is logged and counted once."""

    def __init__(self) -> None:
        self._watched: dict[int, asyncio.Task[None]] = {}

    def watch(self, plane: Plane, event_set: EventSet) -> None:
        """Watch the execution of a command whose outcome the plane has: the plane may have dropped the next commands.

        Args:
            event_set: the command's terminal events.
        """
        if event_set.execution_id not in self._watched:
            watching = asyncio.ensure_future(self._watch(plane, event_set.execution_id, event_set.log_ids()))
            self._watched[event_set.execution_id] = watching
            watching.add_done_callback(lambda _: self._watched.pop(event_set.execution_id, None))

    async def stop(self) -> None:
        await event_loop.end(*self._watched.values())

    @staticmethod
    async def _watch(plane: Plane, execution_id: int, log_ids: Mapping[str, object]) -> None:
        events_before = None
        while True:
            try:
                execution = await plane.execution_detail(execution_id)
            except ControlPlaneError as error:
                if not is_passing(error):
                    log.warning(
                        "execution_check_failed",
                        **log_ids,
                        error=str(error),
                        advice="look at the execution if it stays RUNNING: this worker no longer watches it",
                    )
                    return
                events_before = None
            else:
                if execution.get("status") != "RUNNING":
                    return
                events = read_events(execution)
                is_idle = not _open_commands(execution_id, events)
                if is_idle and len(events) == events_before:
                    metrics.EXECUTIONS_STANDING_STILL.inc()
                    log.error("execution_stands_still", **log_ids, for_s=STANDING_STILL_S, advice=_ADVICE)
                    return
                events_before = len(events) if is_idle else None
            await asyncio.sleep(STANDING_STILL_S)


async def is_stored(plane: Plane, event_set: EventSet) -> bool:
    """Return whether the plane has stored the terminal event of `event_set` under the id that the worker chose. Return
    False also if the plane does not show the execution's events."""
    ask = partial(plane.execution_detail, event_set.execution_id)
    try:
        execution = await retry_while_passing("the events of an execution", ask, ids=event_set.log_ids)
    except ControlPlaneError as error:
        log.warning(
            "execution_check_failed",
            **event_set.log_ids(),
            error=str(error),
            advice="do nothing: without the execution's events, the worker cannot tell whether the control plane has "
            "this outcome already",
        )
        return False
    ours = {
        event.get("event_type"): event for event in read_events(execution) if event.get("event_id") == event_set.own_id
    }
    return str(context_of(ours.get(event_set.next_request.last, {})).get("command_id")) == str(event_set.command_id)


_ADVICE: Final = (
    "cancel the execution and start it again: the control plane has the outcome of this command, but the request was "
    "cut off, and no next command was issued"
)


def _open_commands(execution_id: int, events: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the commands that were issued and have not ended."""
    issued = [event for event in events if event.get("event_type") == "command.issued"]
    ended = [event for event in events if event.get("event_type") in ENDS]
    issued_ids = {f"{execution_id}:{event.get('node_name')}:{event.get('event_id')}" for event in issued}
    return issued_ids - {str(context_of(event).get("command_id")) for event in ended}
