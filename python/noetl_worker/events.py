"""Stage 7b: telling the plane, in order, until it has accepted.

One `CommandEvents` per claimed command. `command.started` is held back for some milliseconds, so that a fast
command travels in one batch; the terminal set waits for a started that is under way, or carries one that was not
accepted: it is never sent after the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import structlog

from noetl_worker.control_plane.client import Plane, refusal
from noetl_worker.control_plane.dialects import NO_ID_YET, EventForm
from noetl_worker.emitter import Emitter, Ownership, Verdict, verdict
from noetl_worker.errors import TransportError
from noetl_worker.event_set import EventSet, SetRequest, StoreRequest
from noetl_worker.models import Command, Event, Report

__all__ = ["CommandEvents"]

log = structlog.get_logger("noetl_worker.events")
_STARTED_TIMEOUT_S: Final = 5.0


class CommandEvents:
    """The events of one command.

    Args:
        hold_s: how long `command.started` waits for the end of a fast command.
        outside: entered while the terminal set is refused and on disk (Slots.waiting).
    """

    def __init__(
        self,
        command: Command,
        plane: Plane,
        form: EventForm,
        emitter: Emitter,
        *,
        hold_s: float,
        outside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.command = command
        self._plane = plane
        self._form = form
        self._emitter = emitter
        self._hold_s = hold_s
        self._outside = outside
        self._held: list[Event] = []
        self._over = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        emitter.ids.observe(command.event_id)

    def start(self) -> None:
        """Report the start, unless the command is over before `hold_s`. Never waits, never raises; once only."""
        if self._starting is not None:
            return
        self._held = self._form.started(self.command)
        self._starting = asyncio.create_task(self._send_started())

    def abandon(self) -> None:
        """The worker gives the command back: a start that is still held is never reported."""
        self._over.set()

    async def _send_started(self) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), self._hold_s)
            return  # fast: the terminal set carries what is held
        except asyncio.TimeoutError:
            pass
        started = self._requests(self._held, self._emitter.ids.next_id())[0]
        try:
            posting = self._plane.post_events(started.path, started.body, started.headers)
            answer = await asyncio.wait_for(posting, _STARTED_TIMEOUT_S)
        except (TransportError, asyncio.TimeoutError) as error:
            log.warning("started_not_sent", **self._who(), error=str(error) or type(error).__name__)
            return
        if verdict(answer, first_try=True) is Verdict.ACCEPTED:
            self._emitter.observe(answer)
            self._held = []
        else:
            log.warning("started_refused", **self._who(), error=str(refusal("command.started", answer)))

    async def _take_held(self) -> list[Event]:
        """The started events that still have to travel, after any request under way has its answer."""
        self._over.set()
        if self._starting is not None:
            await asyncio.wait({self._starting})  # a cancellation of ours must not end a request that is under way
        held, self._held = self._held, []
        return held

    async def finish(self, report: Report, ownership: Ownership) -> None:
        """Send the terminal set and return when it is accepted.

        Raises:
            ServerRefused: the plane will never accept this set.
            ClaimLost: it was late, and the command is no longer ours.
            asyncio.CancelledError: the worker stops; nothing was acked, the command will come again.
        """
        try:
            held = await self._take_held()
        except asyncio.CancelledError:  # while the start was under way: the tool has run, and this is its outcome
            self._emitter.outbox.keep(self._set_of(self._held, report))
            raise
        await self._emitter.deliver(self._plane, self._set_of(held, report), ownership, self._outside)

    def _requests(self, events: Sequence[Event], event_id: int) -> list[SetRequest]:
        return [
            SetRequest(request.path, self._form.body(self.command, request, event_id), request.idempotency_key)
            for request in self._form.requests(self.command, events)
        ]

    def _set_of(self, held: Sequence[Event], report: Report) -> EventSet:
        command = self.command
        made = EventSet(
            command.event_id,
            command.execution_id,
            command.command_id,
            command.step,
            self._form.worker_id,
            self._plane.url,
            command.dialect,
            self._requests([*held, *self._form.terminal(command, report)], NO_ID_YET),
        )
        if report.upload is not None and made.names(report.upload):
            otherwise = [*held, *self._form.terminal(command, report.without_reference())]
            made.store = StoreRequest(report.upload, self._requests(otherwise, NO_ID_YET))
        return made

    def _who(self) -> dict[str, object]:
        return {
            "execution_id": self.command.execution_id,
            "command_id": self.command.command_id,
            "step": self.command.step,
        }
