"""Reporting: reports the start and the outcome of a command to the plane, in order.

Each claimed command has one `CommandEvents`. `command.started` is held back for some milliseconds, so that a fast
command needs one request only. The terminal events wait while the start is being sent. If the start was not sent or not
accepted, they include it. So the start is never sent after the outcome.
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
    "let the step return less, or see in the control plane's log why its store did not take this result (NATS takes 1 "
    "MiB, compressed): one server of the plane has it in memory only, and loses it at a restart"
)


@dataclass(slots=True, eq=False, repr=False)
class CommandEvents:
    command: Command
    plane: Plane
    worker_id: str
    """The worker's name in the claim."""
    emitter: Emitter
    hold_s: float
    """Seconds for which `command.started` is held back."""
    outside: Callable[[], AbstractContextManager[None]] = nullcontext
    """Returns a block in which the command has no slot (Slots.waiting). It is open while terminal events wait
    on disk, and while the request with the last event is slow."""
    warned: Warned = field(default_factory=Warned)
    """Warnings already logged, for each step of a playbook."""
    _is_held: bool = field(default=False, init=False)
    """True from `start` until the plane has accepted the start, or the terminal events include it."""
    _is_started: bool = field(default=False, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    """Timer that reports the start. None if it is reported, or no more to be reported alone."""
    _starting: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """Report the start, once, unless the command is over within `hold_s`. This neither waits nor raises."""
        if self._is_started:
            return
        self._is_started = True
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(self.hold_s, self._report_start)

    def _report_start(self) -> None:
        """Report the start now, while the command runs."""
        self._timer = None
        self._starting = asyncio.create_task(self._send_started())

    def is_issuing(self) -> bool:
        """Return whether the plane is issuing the next commands in the request with this command's last event."""
        return f"{self.worker_id}/{self.command.event_id}" in self.emitter.issuing

    def abandon(self) -> None:
        """Drop a start that was not sent yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def withdraw(self) -> bool:
        """Drop a start that was not sent yet. Return True if no start was sent: the plane knows of none."""
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
        """Wait while the start is being sent. Return whether the terminal events must include the start."""
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
            asyncio.CancelledError: the worker stops. The message was not acknowledged and will be redelivered.
        """
        try:
            with_start = await self._take_held()
        except asyncio.CancelledError:  # the worker stops while the start is being sent: the outbox gets the outcome
            self.emitter.outbox.write(self._make_event_set(report, with_start=self._is_held))
            raise
        event_set = self._make_event_set(report, with_start=with_start)
        await self.emitter.deliver(self.plane, event_set, ownership, self.outside)
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
