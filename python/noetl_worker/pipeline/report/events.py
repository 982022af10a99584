"""Reporting: reports the start and the outcome of a command to the plane, in order.

Each claimed command has one `CommandEvents`. `command.started` is held back for some milliseconds, so that a fast
command needs one request. The terminal events wait while the start is being sent, and include a start that was not
accepted. So the start is never sent after the outcome.
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
_MEMORY_ADVICE: Final = (
    "one server of the control plane has this result in memory only, and loses it at a restart: let the step return "
    "less, or see in that server's log why its store did not take it (NATS takes 1 MiB, compressed)"
)


@dataclass(slots=True, eq=False, repr=False)
class CommandEvents:
    command: Command
    plane: Plane
    worker_id: str
    """The worker's name in the claim."""
    emitter: Emitter
    hold_s: float
    """Seconds for which `command.started` waits for the outcome of a fast command."""
    outside: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while the terminal events are refused and on disk (Slots.waiting)."""
    warned: Warned = field(default_factory=Warned)
    """Warnings already logged for a step of a playbook."""
    _is_held: bool = field(default=False, init=False)
    """True while the start is not reported."""
    _is_started: bool = field(default=False, init=False)
    _starting: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """Report the start once, unless the command is over within `hold_s`. Never wait, never raise."""
        if self._is_started:
            return
        self._is_started = True
        self._is_held = True
        self.emitter.started.hold(self, self.hold_s)

    def send_started(self) -> None:
        """Report the start now, while the command runs."""
        self._starting = asyncio.create_task(self._send_started())

    def is_issuing(self) -> bool:
        """Return whether the plane is issuing the next commands in the request that ends this command."""
        return f"{self.worker_id}/{self.command.event_id}" in self.emitter.issuing

    def abandon(self) -> None:
        """Drop a start that is still held."""
        if self._is_held:
            self.emitter.started.let_go(self)

    async def withdraw(self) -> bool:
        """Drop a start that is still held. Return whether the plane knows of none."""
        self.emitter.started.let_go(self)
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
            log.warning("started_not_sent", **self.command.log_ids(), error=str(error))
            return
        if self.plane.rules.judge(answer) in (SendStatus.ACCEPTED, SendStatus.DUPLICATE):
            self._is_held = False
        else:
            log.warning("started_refused", **self.command.log_ids(), error=str(refusal("command.started", answer)))

    async def _take_held(self) -> bool:
        """Wait for a start request under way, then return whether the start must still be sent."""
        self.emitter.started.let_go(self)
        if self._starting is not None:
            await asyncio.wait({self._starting})  # cancelling us must not cancel a request that is being sent
        is_held, self._is_held = self._is_held, False
        return is_held

    async def finish(self, report: Report, ownership: Ownership) -> None:
        """Send the terminal events and return when they are accepted.

        Raises:
            ServerRefused: the plane will never accept them.
            ClaimLost: they were late, and the command is no longer ours. asyncio.CancelledError: the worker stops; the
                message was not acknowledged and will be redelivered.
        """
        try:
            with_start = await self._take_held()
        except asyncio.CancelledError:  # the start was being sent: the tool has run, and this is its outcome
            self.emitter.outbox.write(self._make_event_set(report, with_start=self._is_held))
            raise
        event_set = self._make_event_set(report, with_start=with_start)
        await self.emitter.deliver(self.plane, event_set, ownership, self.outside)
        reference = event_set.report.reference
        if reference is not None and event_set.rules.is_in_memory(reference) and event_set.report.response is None:
            self._warn("result_stored_in_memory", _MEMORY_ADVICE)

    def _warn(self, event: str, advice: str) -> None:
        StepLog(log.bind(**self.command.log_ids()), self.warned, self.command).warning(event, advice=advice)

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
