"""Reporting: reports the start and the outcome of a command to the plane, in order.

Each claimed command has one `CommandEvents`. The event `command.started` is held back for some milliseconds, so that a
fast command needs no request for this event alone. While `command.started` is being sent, the terminal events wait. If
the plane has not accepted `command.started`, the terminal events include it. So `command.started` is never sent after
the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from noetl_worker.errors import TransportError
from noetl_worker.models.command import Command
from noetl_worker.models.report import Report
from noetl_worker.observability.step_log import StepLog, Warned
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.sending import Ownership
from noetl_worker.remote.plane.client import Plane, refusal
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.send_status import SendStatus

log = structlog.get_logger("noetl_worker.events")
_STARTED_TIMEOUT_S: Final = 5.0
_STARTED_ADVICE: Final = "do nothing: the tool runs on, and the start is sent again with the outcome"
_MEMORY_ADVICE: Final = (
    "the control plane has this result only in the memory of one server, and a restart of that server loses it. Let "
    "the step return less: NATS stores up to 1 MiB after compression. If the result is smaller, the plane's log says "
    "why NATS did not store it"
)


@dataclass(slots=True, eq=False, repr=False)
class CommandEvents:
    command: Command
    plane: Plane
    worker_id: str
    """Name under which this worker has claimed the command."""
    emitter: Emitter
    hold_s: float
    """Seconds for which `command.started` is held back. A command that ends earlier needs no request for this event."""
    free_slot: Callable[[], AbstractContextManager[None]] = nullcontext
    """Function that returns a context manager (Slots.waiting), which gives up the command's slot while it is open. The
    emitter opens it while the terminal events wait on disk, and while the request with the last event is slow."""
    warned: Warned = field(default_factory=Warned)
    """Warnings already logged. A repeated warning about the same step of a playbook is logged at level debug."""
    _is_held: bool = field(default=False, init=False)
    """True if the plane still has to get the event `command.started`. `start` sets the value to True. The value becomes
    False when the plane has accepted the event, or when the terminal events include the event."""
    _is_started: bool = field(default=False, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    """Timer that sends `command.started` in a request of its own. None if no such request is planned."""
    _starting: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """Send `command.started` after `hold_s`, unless the command has ended by then. Only the first call has an
        effect. This neither waits nor raises."""
        if self._is_started:
            return
        self._is_started = True
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(self.hold_s, self._report_start)

    def _report_start(self) -> None:
        """Send `command.started` now, while the command runs."""
        self._timer = None
        self._starting = asyncio.create_task(self._send_started())

    def is_issuing(self) -> bool:
        """Return whether the plane is still processing the request with this command's last event. In this request the
        Rust plane issues the next commands, so the request should not be cancelled."""
        return f"{self.worker_id}/{self.command.event_id}" in self.emitter.issuing

    def abandon(self) -> None:
        """Drop a `command.started` that was not sent yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def withdraw(self) -> bool:
        """Drop a `command.started` that was not sent yet. Return True if the event was never sent, so that the plane
        knows of no start."""
        self.abandon()
        if self._starting is not None:
            await asyncio.wait({self._starting})
        return self._starting is None

    async def _send_started(self) -> None:
        started = RULES[self.command.dialect].started(self.command, self.worker_id)
        try:
            answer = await self.plane.post_events(
                started.path,
                started.body,
                started.headers,
                patience_s=_STARTED_TIMEOUT_S,
                timeout_s=_STARTED_TIMEOUT_S,
            )
        except TransportError as error:
            log.warning("started_not_sent", **self.command.log_ids(), error=str(error), advice=_STARTED_ADVICE)
            return
        if self.plane.rules.judge(answer) in (SendStatus.ACCEPTED, SendStatus.DUPLICATE):
            self._is_held = False
        else:
            error_text = str(refusal("command.started", answer))
            log.warning("started_refused", **self.command.log_ids(), error=error_text, advice=_STARTED_ADVICE)

    async def _take_held(self) -> bool:
        """Wait while `command.started` is being sent. Return whether the terminal events must include this event."""
        self.abandon()
        if self._starting is not None:
            await asyncio.wait({self._starting})  # a cancellation of this task must not cancel the request
        is_held, self._is_held = self._is_held, False
        return is_held

    async def finish(self, report: Report, ownership: Ownership) -> None:
        """Send the terminal events and return when they are accepted.

        Raises:
            ServerRefused: the plane will never accept the events.
            ClaimLost: the events were late, and the command is no longer ours.
            Interrupted, asyncio.CancelledError: the worker stops. The message was not acknowledged and will be
                redelivered.
        """
        try:
            with_start = await self._take_held()
        except asyncio.CancelledError:  # the worker stops while the start is being sent: the outbox gets the outcome
            self.emitter.outbox.write(self._make_event_set(report, with_start=self._is_held))
            raise
        event_set = self._make_event_set(report, with_start=with_start)
        await self.emitter.deliver(self.plane, event_set, ownership, self.free_slot)
        reference = event_set.report.reference
        if reference is not None and event_set.rules.is_in_memory(reference) and event_set.report.response is None:
            step_log = StepLog(log.bind(**self.command.log_ids()), self.warned, self.command)
            step_log.warning("result_stored_in_memory", advice=_MEMORY_ADVICE)

    def _make_event_set(self, report: Report, *, with_start: bool) -> EventSet:
        command = self.command
        if report.upload is not None and not RULES[command.dialect].names_result(report):
            report = replace(report, upload=None)
        return EventSet(
            command.event_id,
            command.execution_id,
            command.command_id,
            command.step,
            self.worker_id,
            self.plane.url,
            command.dialect,
            report,
            command.attempt,
            command.loop,
            with_start,
            kind=command.kind,
        )
