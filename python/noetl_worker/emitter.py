"""Stage 7b: a set of terminal events, sent until the plane has accepted it.

What one answer means is the table `verdict`. While a set is refused it is in the outbox, and it leaves its slot:
what is on disk needs no place among what runs. A set that is late is sent only when its command is still ours.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol
from weakref import WeakValueDictionary

import structlog

from noetl_worker import redaction
from noetl_worker.control_plane.client import Plane, json_body, refusal, retry_after_s
from noetl_worker.control_plane.gate import MAX_RETRY_AFTER_S
from noetl_worker.control_plane.transport import Response
from noetl_worker.errors import ControlPlaneError, NotSent, TransportError
from noetl_worker.event_set import EventSet, SetRequest, StoreRequest
from noetl_worker.models import Upload
from noetl_worker.observability import metrics
from noetl_worker.outbox import Outbox
from noetl_worker.patience import Doubt, is_passing
from noetl_worker.snowflake import Snowflake

__all__ = ["Emitter", "Ownership", "Verdict", "verdict"]

log = structlog.get_logger("noetl_worker.events")
_REFUSALS: Final = frozenset({400, 409, 413, 422})
LATE_S: Final = 30.0
"""After so long without an accepted event the plane may have given the claim away (wire.md 3.2: a stale holder)."""
_MAX_DELAY_S: Final = 10.0
_MAX_REASON_CHARS: Final = 500


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
    LOST = "lost"
    """Stored, and never to be processed: a rescue has to be sent."""


def verdict(answer: Response, *, first_try: bool, has_own_id: bool = False) -> Verdict:
    """What one answer to an event request means (wire.md 3.4, 3.5, 9.3 item 5, 9.4).

    `has_own_id`: the request carried an event id of ours (a single event of the Rust plane).
    """
    status, is_the_planes = answer.status, isinstance(json_body(answer), dict)
    if 200 <= status < 300:
        return Verdict.ACCEPTED if is_the_planes else Verdict.DOUBTFUL
    if status in (401, 403, 408, 425, 429, 502, 503, 504):
        return Verdict.PASSING
    if status >= 500:
        if has_own_id and b"duplicate key" in answer.body:
            # On a retry it is our own event that was stored before the answer was lost.
            return Verdict.NEW_ID if first_try else Verdict.ACCEPTED
        # The single route of the Python plane wraps a passing 503 into a 500 (wire.md 9.4).
        return Verdict.PASSING if b"db_unavailable" in answer.body or b"503:" in answer.body else Verdict.DOUBTFUL
    # A page of a proxy, or a route that is away while the plane is replaced, says nothing about the set.
    return Verdict.REFUSED if is_the_planes and status in _REFUSALS else Verdict.DOUBTFUL


class Ownership(Protocol):
    """Whether a command whose outcome is late is still ours."""

    def in_doubt(self) -> bool:
        """The delivery or the claim may have passed to another worker."""
        ...

    async def confirm(self) -> None:
        """Ask the plane. Raises ClaimLost when somebody else has the command, or it is over."""
        ...


@dataclass(slots=True)
class _Course:
    """How the sending of one set goes."""

    confirmed_at: float
    """Monotonic time at which the command was known to be ours."""
    tries: int = 0
    doubt: Doubt = field(default_factory=Doubt)
    is_inside: bool = True
    """Whether the set has its slot still: it leaves it once, whichever of its requests are refused."""

    def count(self, how: Verdict) -> None:
        self.tries += 1
        if how in (Verdict.DOUBTFUL, Verdict.NEW_ID):
            self.doubt.add()
        else:  # a plane that is away says nothing about the set, and its time is no time of doubt
            self.doubt.settle()

    def settle(self) -> None:
        """A request was accepted; the next one begins anew."""
        self.tries = 0
        self.doubt.settle()

    @property
    def known_s(self) -> float:
        """For how long the command will still be known to be ours."""
        return self.confirmed_at + LATE_S - time.monotonic()


class Emitter:
    """Sends sets. One for the whole worker; `deliver` is called concurrently."""

    def __init__(self, ids: Snowflake, outbox: Outbox, *, on_auth_refused: Callable[[], None] = lambda: None) -> None:
        self.ids = ids
        self.outbox = outbox
        self._telling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._on_auth_refused = on_auth_refused
        """Who is refused here is refused the next claim too: pulling more would only fill the outbox."""

    async def deliver(
        self,
        plane: Plane,
        event_set: EventSet,
        ownership: Ownership,
        outside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Send the set and return when it is accepted.

        Args:
            outside: entered while a set that is on disk is refused: its slot is free meanwhile.

        Raises:
            ServerRefused: the plane will never accept this set.
            ClaimLost: it was late, and the command is no longer ours.
            asyncio.CancelledError: the worker stops; what is left of the set is in the outbox.
        """
        # An adopted outcome and our own run of the same claim (Rust plane): the second asks when the first is told.
        telling = self._telling.setdefault(event_set.key, asyncio.Lock())
        is_second = telling.locked()
        try:
            async with telling:
                is_in_doubt = is_second or ownership.in_doubt()
                course = _Course(confirmed_at=-math.inf if is_in_doubt else time.monotonic())
                await self._deliver(plane, event_set, ownership, course, outside)
        except asyncio.CancelledError:
            self.outbox.keep(event_set)
            raise

    async def _deliver(
        self,
        plane: Plane,
        event_set: EventSet,
        ownership: Ownership,
        course: _Course,
        outside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._arm(event_set)
        if self.outbox.writes_first:
            self.outbox.keep(event_set)
        try:
            with ExitStack() as waiting:
                while event_set.is_open:
                    with metrics.event_emit(event_set.next.last_event):
                        await self._send(plane, event_set, ownership, course, lambda: waiting.enter_context(outside()))
                    course.settle()
                    self._arm(event_set)
                    self.outbox.accepted(event_set)
        except Exception:
            self.outbox.drop(event_set)
            raise

    def _arm(self, event_set: EventSet) -> None:
        """Give the next event its id: after the ids that the plane has answered so far, and before it is kept."""
        for request in event_set.requests[:1] if event_set.store is None else ():
            if request.has_own_id and not request.body["event_id"]:
                request.body["event_id"] = self.ids.next_id()

    async def _send(
        self,
        plane: Plane,
        event_set: EventSet,
        ownership: Ownership,
        course: _Course,
        leave_slot: Callable[[], None],
    ) -> None:
        def set_aside() -> None:
            """What has to wait belongs on disk, and needs no slot there."""
            # A result waits as it is: it may be large, and it was written at its first refusal.
            is_there = event_set.store is not None and self.outbox.has(event_set)
            if (is_there or self.outbox.keep(event_set)) and course.is_inside:
                course.is_inside = False
                leave_slot()

        while True:
            request = event_set.next
            gate = plane.store_gate if isinstance(request, StoreRequest) else plane.gate
            is_late = course.known_s < 0 and not request.is_rescue
            if course.is_inside and (is_late or not gate.has_room()):  # it would wait there in memory alone
                set_aside()
            if is_late:
                await ownership.confirm()
                course.confirmed_at = time.monotonic()
            # Not longer at the gate than it is known to be ours: whose it is by then is asked first.
            patience_s = None if request.is_rescue else course.known_s
            if isinstance(request, StoreRequest):
                answer, how, reason = await self._try_to_store(plane, event_set, request.upload, patience_s)
            else:
                answer, how, reason = await self._try(plane, event_set, request, patience_s)
            if how is Verdict.ACCEPTED and answer is not None:
                event_set.accepted(json_body(answer))
                return
            course.count(how)
            is_refused = how is Verdict.REFUSED or (how is not Verdict.PASSING and course.doubt.is_refusal)
            if answer is not None and is_refused:
                refused = refusal(f"{request.last_event} after {course.tries} tries", answer)
                if event_set.store is None:
                    raise refused
                log.error("result_not_stored", **event_set.who(), error=str(refused))
                event_set.not_stored(redaction.excerpt(str(refused), _MAX_REASON_CHARS))
                return
            if answer is not None and answer.status in (401, 403):
                self._on_auth_refused()
            set_aside()
            metrics.EVENT_EMIT_RETRIES.labels(request.last_event).inc()
            delay_s = self._delay_s(course.tries, answer)
            log.warning(
                "events_not_accepted",
                **event_set.who(),
                tries=course.tries,
                next_try_s=round(delay_s, 2),
                reason=reason,
            )
            await asyncio.sleep(delay_s)
            if ownership.in_doubt():  # somebody else may have ended it while we waited
                course.confirmed_at = -math.inf

    async def _try(
        self, plane: Plane, event_set: EventSet, request: SetRequest, patience_s: float | None
    ) -> tuple[Response | None, Verdict, str]:
        """One try: the answer (None: there was none), what it means, and why it is not an acceptance."""
        first_try, request.was_tried = not request.was_tried, True
        try:
            answer = await plane.post_events(request.path, request.body, request.headers, patience_s=patience_s)
        except NotSent as error:
            request.was_tried = not first_try
            return None, Verdict.PASSING, str(error)
        except TransportError as error:
            return None, Verdict.PASSING, str(error)
        how = verdict(answer, first_try=first_try, has_own_id=request.has_own_id)
        if how is Verdict.ACCEPTED:
            self.observe(answer)
        elif how is Verdict.NEW_ID:
            request.body["event_id"], request.was_tried = self.ids.next_id(), False
        how = await self._looked_into(plane, event_set, answer, how)
        if how is Verdict.LOST:
            log.warning("batch_rescued", **event_set.who())
            rescue = request.rescue()
            if rescue is None:  # nothing of it brings an execution on
                return answer, Verdict.ACCEPTED, ""
            event_set.requests[0] = rescue
            return answer, Verdict.PASSING, "its events are stored, and were never processed: step.exit is sent again"
        return answer, how, "" if how is Verdict.ACCEPTED else str(refusal(request.path, answer))

    @staticmethod
    async def _try_to_store(
        plane: Plane, event_set: EventSet, upload: Upload, patience_s: float | None
    ) -> tuple[Response | None, Verdict, str]:
        """As `_try`, for a result that goes to the result store."""
        execution_id, step = event_set.execution_id, upload.source_step
        try:
            answer = await plane.store_result(
                execution_id, upload.name, upload.data, source_step=step, patience_s=patience_s
            )
        except TransportError as error:
            return None, Verdict.PASSING, str(error)
        how, body = verdict(answer, first_try=True), json_body(answer)
        told = body if isinstance(body, dict) else {}
        if how is Verdict.ACCEPTED and not isinstance(told.get("ref"), str):
            how = Verdict.DOUBTFUL  # not the store's answer: the result is nowhere yet
        # Too large is too large, whoever says so; a 404 in the plane's own words: it has no result store.
        has_no_store = answer.status == 404 and "not found" in str(told.get("detail", told.get("error"))).lower()
        if how is Verdict.DOUBTFUL and (answer.status == 413 or has_no_store):
            how = Verdict.REFUSED
        return answer, how, str(refusal("PUT result", answer))

    async def _looked_into(self, plane: Plane, event_set: EventSet, answer: Response, how: Verdict) -> Verdict:
        """What the batch status adds to an answer: the Python plane can hold the rows and never process them.

        It says so with a 503 `ack_timeout`, or, when that answer was lost, with "duplicate" to the same key (wire.md
        9.4).
        """
        body = json_body(answer)
        if not isinstance(body, dict):
            return how
        told = body.get("detail") if answer.status == 503 else body
        is_late = answer.status == 503 and isinstance(told, dict) and told.get("code") == "ack_timeout"
        is_again = answer.status == 202 and body.get("duplicate") is True
        if not isinstance(told, dict) or not (is_late or is_again):
            return how
        try:
            return Verdict.LOST if await plane.batch_state(str(told.get("request_id"))) == "failed" else how
        except ControlPlaneError as error:
            log.warning("batch_state_unknown", **event_set.who(), error=str(error))
            if is_late:  # a rescue too many changes nothing
                return Verdict.LOST
            return Verdict.PASSING if is_passing(error) else how

    def observe(self, answer: Response) -> None:
        """Later ids must be above those that the plane has answered (wire.md 9.3, item 5)."""
        body = json_body(answer)
        if not isinstance(body, dict):
            return
        for event_id in (body.get("event_id"), *(body.get("event_ids") or [])):
            if isinstance(event_id, int):
                self.ids.observe(event_id)

    @staticmethod
    def _delay_s(tries: int, answer: Response | None, draw: Callable[[], float] = random.random) -> float:
        floor_s = (retry_after_s(answer) if answer is not None else None) or 0.0
        return min(floor_s, MAX_RETRY_AFTER_S) + min(_MAX_DELAY_S, 0.1 * 2.0 ** min(tries, 10)) * (0.1 + 0.9 * draw())
