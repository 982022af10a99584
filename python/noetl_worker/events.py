"""Stage 7b: telling the plane, in order, until it has accepted.

One `CommandEvents` per claimed command. `command.started` is held back for some milliseconds, so that a fast
command travels in one batch; the terminal set waits for a started that is under way, or carries one that was not
accepted: it is never sent after the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Final

import structlog

from noetl_worker.control_plane.client import Plane, json_body, refusal, retry_after_s
from noetl_worker.control_plane.dialects import SINGLE, EventForm
from noetl_worker.control_plane.transport import Response
from noetl_worker.errors import ControlPlaneError, TransportError
from noetl_worker.models import Command, Dialect, Event, EventRequest, Report
from noetl_worker.observability import metrics
from noetl_worker.snowflake import Snowflake

__all__ = ["CommandEvents"]

log = structlog.get_logger("noetl_worker.events")
MAX_DOUBTFUL_TRIES: Final = 6
"""A 500 is a client's mistake as often as a fault (wire.md 3.4); more tries only delay the report of the refusal."""
_MAX_DELAY_S: Final = 10.0
_STARTED_TIMEOUT_S: Final = 5.0


class Verdict(Enum):
    ACCEPTED = "accepted"
    PASSING = "passing"
    """Try again for as long as it takes."""
    DOUBTFUL = "doubtful"
    """Try again some times: it may pass, or be our mistake."""
    REFUSED = "refused"
    """The same body will never be accepted."""
    NEW_ID = "new_id"
    """Our event id is taken by another event."""


def verdict(answer: Response, *, first_try: bool, has_own_id: bool = False) -> Verdict:
    """What one answer to an event request means (wire.md 3.4, 3.5, 9.3 item 5, 9.4).

    `has_own_id`: the request carried an event id of ours (a single event of the Rust plane).
    """
    status = answer.status
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    if status in (401, 403, 408, 425, 429, 502, 503, 504):
        return Verdict.PASSING
    if status >= 500:
        if has_own_id and b"duplicate key" in answer.body:
            # On a retry it is our own event that was stored before the answer was lost.
            return Verdict.NEW_ID if first_try else Verdict.ACCEPTED
        # The single route of the Python plane wraps a passing 503 into a 500 (wire.md 9.4).
        return Verdict.PASSING if b"db_unavailable" in answer.body or b"503:" in answer.body else Verdict.DOUBTFUL
    return Verdict.REFUSED


class CommandEvents:
    """The events of one command.

    Args:
        hold_s: how long `command.started` waits for the end of a fast command.
    """

    def __init__(self, command: Command, plane: Plane, form: EventForm, ids: Snowflake, *, hold_s: float) -> None:
        self.command = command
        self._plane = plane
        self._form = form
        self._ids = ids
        self._hold_s = hold_s
        self._held: list[Event] = []
        self._over = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        ids.observe(command.event_id)

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
        request = self._form.requests(self.command, self._held)[0]
        body = self._form.body(self.command, request, self._ids.next_id())
        try:
            answer = await asyncio.wait_for(self._post(request, body), _STARTED_TIMEOUT_S)
        except (TransportError, asyncio.TimeoutError) as error:
            log.warning("started_not_sent", **self._who(), error=str(error) or type(error).__name__)
            return
        if verdict(answer, first_try=True) is Verdict.ACCEPTED:
            self._observe(answer)
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

    async def finish(self, report: Report) -> None:
        """Send the terminal set and return when it is accepted.

        Raises:
            ServerRefused: the plane will never accept this set.
            asyncio.CancelledError: the worker stops; nothing was acked, the command will come again.
        """
        held = await self._take_held()
        events = [*held, *self._form.terminal(self.command, report)]
        for request in self._form.requests(self.command, events):
            with metrics.event_emit(request.events[-1].name):
                await self._deliver(request)

    async def _deliver(self, request: EventRequest) -> None:
        event_id, tries, doubtful, first_try = self._ids.next_id(), 0, 0, True
        has_own_id = self._form.dialect is Dialect.RUST and request.path == SINGLE
        while True:
            answer, reason = await self._try(request, event_id)
            if answer is None:
                how = Verdict.PASSING
            else:
                how = verdict(answer, first_try=first_try, has_own_id=has_own_id)
                if how is Verdict.PASSING and await self._stored_but_not_processed(answer):
                    return await self._rescue(request)
            if how is Verdict.ACCEPTED:
                return None
            tries += 1
            first_try = how is Verdict.NEW_ID
            if first_try:
                event_id = self._ids.next_id()
            doubtful += how in (Verdict.DOUBTFUL, Verdict.NEW_ID)
            if answer is not None and (how is Verdict.REFUSED or doubtful >= MAX_DOUBTFUL_TRIES):
                raise refusal(f"{request.events[-1].name} after {tries} tries", answer)
            metrics.EVENT_EMIT_RETRIES.labels(request.events[-1].name).inc()
            delay_s = self._delay_s(tries, answer)
            log.warning("events_not_accepted", **self._who(), tries=tries, next_try_s=round(delay_s, 2), reason=reason)
            await asyncio.sleep(delay_s)

    async def _stored_but_not_processed(self, answer: Response) -> bool:
        """The Python plane's `ack_timeout`: the rows are stored, the engine never sees them, and the same key is from
        then on answered as an accepted duplicate (wire.md 9.4). Its batch status says so."""
        body = json_body(answer)
        detail = body.get("detail") if isinstance(body, dict) else None
        if answer.status != 503 or not isinstance(detail, dict) or detail.get("code") != "ack_timeout":
            return False
        try:
            return await self._plane.batch_state(str(detail.get("request_id"))) == "failed"
        except ControlPlaneError as error:
            log.warning("batch_state_unknown", **self._who(), error=str(error))
            return True

    async def _rescue(self, request: EventRequest) -> None:
        """`step.exit` alone, actionable, under a new key: the one rescue seen to work (wire.md 9.4)."""
        leave = [replace(event, actionable=True) for event in request.events if event.name == "step.exit"]
        log.warning("batch_rescued", **self._who())
        for rescue in self._form.requests(self.command, leave):
            await self._deliver(rescue)

    @staticmethod
    def _delay_s(tries: int, answer: Response | None, draw: Callable[[], float] = random.random) -> float:
        floor_s = (retry_after_s(answer) if answer is not None else None) or 0.0
        return floor_s + min(_MAX_DELAY_S, 0.1 * 2.0 ** min(tries, 10)) * (0.1 + 0.9 * draw())

    async def _try(self, request: EventRequest, event_id: int) -> tuple[Response | None, str]:
        try:
            answer = await self._post(request, self._form.body(self.command, request, event_id))
        except TransportError as error:
            return None, str(error)
        if 200 <= answer.status < 300:
            self._observe(answer)
            return answer, ""
        return answer, str(refusal(request.path, answer))

    async def _post(self, request: EventRequest, body: object) -> Response:
        headers = {"idempotency-key": request.idempotency_key} if request.idempotency_key else {}
        return await self._plane.post_events(request.path, body, headers)

    def _observe(self, answer: Response) -> None:
        """Later ids must be above those that the plane has answered (wire.md 9.3, item 5)."""
        body = json_body(answer)
        if not isinstance(body, dict):
            return
        ids: Sequence[object] = [body.get("event_id"), *(body.get("event_ids") or [])]
        for event_id in ids:
            if isinstance(event_id, int):
                self._ids.observe(event_id)

    def _who(self) -> dict[str, object]:
        return {
            "execution_id": self.command.execution_id,
            "command_id": self.command.command_id,
            "step": self.command.step,
        }
