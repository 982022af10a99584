"""Stage 7b: a set of terminal events, sent until the plane has accepted it.

What one answer means is the table `judge`. While a set is refused it is in the outbox, and it leaves its slot:
what is on disk needs no place among what runs. A set that is late is sent only when its command is still ours.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

import structlog

from noetl_worker import backoff, json_text
from noetl_worker.errors import ClaimLost, ControlPlaneError, Interrupted, NotSent, TransportError
from noetl_worker.models import AlreadyFinished, Upload
from noetl_worker.observability import metrics
from noetl_worker.outbox.event_set import EventSet
from noetl_worker.outbox.outbox import Outbox
from noetl_worker.plane.answers import CUT_BY_A_PROXY, MEANING, PASSES, Meaning, floor_s, retry_after_s
from noetl_worker.plane.client import Plane, json_body, refusal
from noetl_worker.plane.patience import STORE_UNCERTAIN_S, Uncertainty, until_it_passes
from noetl_worker.plane.python.rules import unqueued_batch
from noetl_worker.plane.rust.event_ids import EventIds
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.report.batch_events import BatchEvents
from noetl_worker.report.execution_watch import ExecutionWatch, is_stored
from noetl_worker.report.started_clock import StartedClock
from noetl_worker.secrets import redaction
from noetl_worker.stopping import Stopping
from noetl_worker.transport.transport import Response

__all__ = ["NOT_RESCUED_ADVICE", "Emitter", "Ownership", "SendStatus", "judge"]

log = structlog.get_logger("noetl_worker.events")
_REFUSALS: Final = frozenset({400, 409, 413, 422})
"""Of what is refused, all that a plane says about a set; any other is a route that is missing, or somebody between."""
LATE_S: Final = 30.0
"""After so long without an accepted event the plane may have given the claim away (protocol/claim.md#leases: a stale
holder)."""
_MAX_DELAY_S: Final = 10.0
_MAX_REASON_CHARS: Final = 500
SLOW_END_S: Final = 0.5
"""A plane that takes longer over an end is issuing commands: what waits for that belongs on disk and needs no slot."""


NOT_RESCUED_ADVICE: Final = (
    "the control plane has stored the end of this command and never processes it. It is not sent again: for an item of "
    "a loop the plane would issue items again that have run, and of a list of tasks it passes it over. Look at the "
    "execution, and start it again if it stays RUNNING"
)


class SendStatus(Enum):
    ACCEPTED = "accepted"
    PASSING = "passing"
    """Try again for as long as it takes."""
    UNCERTAIN = "uncertain"
    """Try again some times: it may pass, or be our mistake."""
    REFUSED = "refused"
    """The same body will never be accepted."""
    NEW_ID = "new_id"
    """Our event id is taken by another event."""
    LOST = "lost"
    """Stored, and never to be processed: a rescue has to be sent."""


def judge(answer: Response, *, first_try: bool, has_own_id: bool = False) -> SendStatus:
    """What one answer to an event request means (protocol/events.md).

    `has_own_id`: the request carried an event id of ours (a single event of the Rust plane).
    """
    status, is_the_planes = answer.status, type(answer.json()) is dict
    means = MEANING[status]
    if means is Meaning.ACCEPTED:
        return SendStatus.ACCEPTED if is_the_planes else SendStatus.UNCERTAIN
    if means in PASSES:
        return SendStatus.LOST if status == 503 and unqueued_batch(answer.json()) else SendStatus.PASSING
    if means is Meaning.UNCERTAIN:
        if has_own_id and b"duplicate key" in answer.body:
            # On a retry it is our own event that was stored before the answer was lost.
            return SendStatus.NEW_ID if first_try else SendStatus.ACCEPTED
        # The single route of the Python plane wraps a passing 503 into a 500 (protocol/events.md#python-plane).
        return (
            SendStatus.PASSING if b"db_unavailable" in answer.body or b"503:" in answer.body else SendStatus.UNCERTAIN
        )
    # A page of a proxy, or a route that is missing while the plane is replaced, says nothing about the set.
    return SendStatus.REFUSED if is_the_planes and status in _REFUSALS else SendStatus.UNCERTAIN


class Ownership(Protocol):
    """Whether a command whose outcome is late is still ours."""

    def is_uncertain(self, now: float) -> bool:
        """The delivery or the claim may have passed to another worker."""
        ...

    async def confirm(self) -> None:
        """Ask the plane. Raises ClaimLost when somebody else has the command, or it is over."""
        ...


@dataclass(slots=True)
class _Sending:
    """How the sending of one set goes."""

    known_until: float
    """Monotonic time until which the command is known to be ours."""
    outside: Callable[[], AbstractContextManager[None]] | None = None
    """How it leaves its slot; None: it has none, and no delivery is answered when the set is accepted."""
    left: AbstractContextManager[None] | None = None
    """Entered once it has left it."""
    tries: int = 0
    uncertainty: Uncertainty = field(default_factory=Uncertainty)

    @property
    def is_inside(self) -> bool:
        return self.outside is not None and self.left is None

    def leave(self) -> None:
        """Give up the slot, once, whichever of its requests have to wait."""
        if self.outside is not None and self.left is None:
            self.left = self.outside()
            self.left.__enter__()

    def come_back(self) -> None:
        left, self.left = self.left, None
        if left is not None:
            left.__exit__(None, None, None)

    def count(self, how: SendStatus) -> None:
        self.tries += 1
        if how in (SendStatus.UNCERTAIN, SendStatus.NEW_ID):
            self.uncertainty.add()
        else:  # a plane that is down says nothing about the set, and its time does not count as uncertainty
            self.uncertainty.settle()

    def settle(self) -> None:
        """A request was accepted; the next one begins anew."""
        self.tries = 0
        self.uncertainty.settle()


class Emitter:
    """Sends sets. One per worker; `deliver` is called concurrently."""

    def __init__(self, ids: EventIds, outbox: Outbox, stopping: Stopping | None = None) -> None:
        self.ids = ids
        self.outbox = outbox
        self.stopping: Final = stopping or Stopping()
        self.started: Final = StartedClock()
        self._sending: dict[str, list[asyncio.Future[None]]] = {}
        """Keys of the sets that are sent, and who waits for each."""
        self.watch: Final = ExecutionWatch()
        self.on_accepted: Callable[[Plane, EventSet, Any], None] = lambda plane, event_set, answer: None
        """Called with what the Python plane has accepted, and its answer."""
        self.issuing: Final[dict[str, bool]] = {}
        """Sets whose end is with a plane that issues the next commands; whether a delivery is answered with it."""

    async def deliver(
        self,
        plane: Plane,
        event_set: EventSet,
        ownership: Ownership,
        outside: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Send the set and return when it is accepted.

        Args:
            outside: entered while a set that is on disk is refused: its slot is free meanwhile. None: it has no slot.

        Raises:
            ServerRefused: the plane will never accept this set.
            ClaimLost: it was late, and the command is no longer ours.
            Interrupted, asyncio.CancelledError: the worker stops; what is left of the set is in the outbox.
        """
        # An adopted outcome and our own run of the same claim (Rust plane): the second asks when the first is reported.
        key, is_second = event_set.key, event_set.key in self._sending
        try:
            while key in self._sending:
                await self._turn(key)
            self._sending[key] = []
            now = time.monotonic()
            is_uncertain = is_second or ownership.is_uncertain(now)
            sending = _Sending(-math.inf if is_uncertain else now + LATE_S, outside)
            try:
                await self._deliver(plane, event_set, ownership, sending, now)
            finally:
                sending.come_back()
                for place in self._sending.pop(key):  # who waits goes on
                    if not place.done():
                        place.set_result(None)
        except (asyncio.CancelledError, Interrupted):
            self.outbox.keep(event_set)
            raise
        except ClaimLost as lost:
            self._not_reported(plane, event_set, lost)
            raise

    async def _turn(self, key: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sending[key].append(place)
        await place

    def _not_reported(self, plane: Plane, event_set: EventSet, lost: ClaimLost) -> None:
        """The plane says that the command is another's, or over."""
        if isinstance(lost.claim, AlreadyFinished) and event_set.issues_commands and event_set.was_tried:
            log.info("outcome_already_stored", **event_set.who())  # our own event, whose answer was lost
            self.watch.look_at(plane, event_set)
            return
        metrics.OUTCOMES_DROPPED.inc()
        log.warning("outcome_dropped", **event_set.who(), reason=lost.claim.reason)

    async def _deliver(
        self, plane: Plane, event_set: EventSet, ownership: Ownership, sending: _Sending, now: float
    ) -> None:
        if event_set.part.has_own_id:
            self._arm(event_set)
        if self.outbox.writes_first:
            self.outbox.keep(event_set)
        try:
            while event_set.is_open:
                since, name = now, event_set.last_event
                try:
                    await self._send(plane, event_set, ownership, sending, since)
                finally:
                    now = time.monotonic()
                    metrics.EMITTED[name].observe(now - since)
                if sending.tries:
                    sending.settle()
                if event_set.is_open:
                    self._arm(event_set)
                self.outbox.accepted(event_set)
        except Interrupted:
            raise
        except Exception:
            self.outbox.drop(event_set)
            raise

    def _arm(self, event_set: EventSet) -> None:
        """Give the next event its id, before it is kept."""
        if event_set.is_open and event_set.has_own_id and not event_set.own_id:
            event_set.own_id = self.ids.above(event_set.above)

    async def _send(
        self, plane: Plane, event_set: EventSet, ownership: Ownership, sending: _Sending, now: float
    ) -> None:
        while True:
            upload = event_set.report.upload
            gate = plane.gate if upload is None else plane.store_gate
            known_s = sending.known_until - now
            is_late = known_s < 0 and not event_set.is_rescue
            if (is_late or not gate.has_room()) and sending.is_inside:  # it would wait there in memory alone
                self._set_aside(event_set, sending)
            if is_late:
                await self._confirm(plane, event_set, ownership)
                if not event_set.is_open:
                    return
                sending.known_until, known_s = time.monotonic() + LATE_S, LATE_S
            # Not longer at the gate than it is known to be ours: whose it is by then is asked first.
            patience_s = None if event_set.is_rescue else known_s
            if upload is None:
                body, most = event_set.body(), plane.server.batch_bytes or event_set.rules.batch_bytes
                if most is not None and not json_text.fits(body, most) and await self._cut(event_set, most):
                    return
                answer, how, reason = await self._try(plane, event_set, body, patience_s, sending)
            else:
                answer, how, reason = await self._try_to_store(plane, event_set, upload, patience_s)
            if how is SendStatus.ACCEPTED and answer is not None:
                event_set.accepted(answer.json())
                return
            sending.count(how)
            # A store that is down is waited for: only what it says of the result itself may cost the result.
            costs_result = upload is not None and not event_set.rules.inlines_unstored_results
            is_over = sending.uncertainty.is_over(STORE_UNCERTAIN_S) if costs_result else sending.uncertainty.is_refusal
            is_refused = how is SendStatus.REFUSED or (how is not SendStatus.PASSING and is_over)
            if is_refused and upload is not None:
                self._not_stored(event_set, reason)
                return
            if answer is not None and is_refused:
                await self._refused(plane, event_set, answer, sending)
                return
            if answer is not None and MEANING[answer.status] is Meaning.AUTH:
                # Who is refused here is refused the next claim too: pulling more would only fill the outbox.
                plane.client.auth_refused(plane.url)
            await self._wait(event_set, sending, answer, reason)
            now = time.monotonic()
            if ownership.is_uncertain(now):  # somebody else may have ended it while we waited
                sending.known_until = -math.inf

    async def _wait(self, event_set: EventSet, sending: _Sending, answer: Response | None, reason: str) -> None:
        """Until the next try; Interrupted where there is none any more."""
        self._set_aside(event_set, sending)
        metrics.EVENT_EMIT_RETRIES.labels(event_set.last_event).inc()
        delay_s = self._delay_s(sending.tries, answer)
        tries, next_try_s = sending.tries, round(delay_s, 2)
        log.warning("events_not_accepted", **event_set.who(), tries=tries, next_try_s=next_try_s, reason=reason)
        if self.stopping.is_grace_over:  # it had its last try
            raise Interrupted
        await self.stopping.sleep(delay_s)

    async def _confirm(self, plane: Plane, event_set: EventSet, ownership: Ownership) -> None:
        """Ask whose the command is. Where it is over by our own events, whose answer was lost, nothing is left to be
        sent, or a rescue (Python plane). Raises ClaimLost where it is not ours."""
        try:
            await ownership.confirm()
        except ClaimLost as lost:
            may_be_ours = event_set.was_tried and event_set.rules.forgets_batches
            if not may_be_ours or not isinstance(lost.claim, AlreadyFinished):
                raise
            events = BatchEvents(plane, event_set.execution_id)
            try:
                batch = await until_it_passes("the batch of an outcome", partial(events.batch_of, event_set))
            except ControlPlaneError as error:
                log.warning("batch_state_unknown", **event_set.who(), error=str(error))
                raise lost from error
            if batch is None:
                raise
            log.info("outcome_already_stored", **event_set.who(), batch=batch)
            await self._look_after(plane, event_set, batch)

    async def _look_after(self, plane: Plane, event_set: EventSet, batch: str) -> None:
        """A batch that is stored, and may never be processed."""
        try:
            state = await until_it_passes("the state of a batch", partial(plane.batch_state, batch))
        except ControlPlaneError as error:  # forgotten since, it may be: that is found out with the other recent ones
            log.warning("batch_state_unknown", **event_set.who(), error=str(error))
            state = None
        if state is None or not state.was_never_processed:
            self.on_accepted(plane, event_set, {"request_id": batch})
        elif event_set.can_be_rescued:
            log.warning("batch_rescued", **event_set.who())
            event_set.rescue(batch)
            return
        else:
            log.error("batch_not_rescued", **event_set.who(), advice=NOT_RESCUED_ADVICE)
        event_set.accepted(None)

    def _set_aside(self, event_set: EventSet, sending: _Sending) -> None:
        """What has to wait belongs on disk, and needs no slot there."""
        # A result waits as it is: it may be large, and it was written at its first refusal.
        is_there = event_set.report.upload is not None and self.outbox.has(event_set)
        if is_there or self.outbox.keep(event_set):
            sending.leave()

    async def _refused(self, plane: Plane, event_set: EventSet, answer: Response, sending: _Sending) -> None:
        """Go on without the result where it is its size that was refused; raises ServerRefused."""
        limit = event_set.rules.batch_limit(answer.body)
        if limit is not None:
            plane.server.batch_bytes = limit
            if await self._cut(event_set, limit):
                return
        raise refusal(f"{event_set.last_event} after {sending.tries} tries", answer)

    @staticmethod
    async def _cut(event_set: EventSet, most: int) -> bool:
        """Whether a result was taken out of the events: it is stored first."""
        if not await finished_off_loop(partial(event_set.cut, most)):
            return False
        log.info("result_left_out_of_event", **event_set.who(), bytes=event_set.size, limit=most)
        event_set.was_tried = False
        return True

    async def _post_end(
        self, plane: Plane, event_set: EventSet, body: bytes, patience_s: float | None, sending: _Sending
    ) -> Response:
        part = event_set.part
        slow: asyncio.TimerHandle | None = None

        def is_slow() -> None:
            self._set_aside(event_set, sending)
            sending.leave()  # on disk or not: its work is done

        def sent() -> None:
            nonlocal slow
            self.issuing[event_set.key] = sending.outside is not None
            slow = asyncio.get_running_loop().call_later(SLOW_END_S, is_slow)

        try:
            return await plane.post_end(part.path, body, patience_s=patience_s, on_sent=sent)
        finally:
            self.issuing.pop(event_set.key, None)
            if slow is not None:
                slow.cancel()

    async def _try(
        self, plane: Plane, event_set: EventSet, sent: bytes, patience_s: float | None, sending: _Sending
    ) -> tuple[Response | None, SendStatus, str]:
        """One try: the answer (None: there was none), what it means, and why it is not an acceptance."""
        first_try, event_set.was_tried, part = not event_set.was_tried, True, event_set.part
        try:
            if part.issues_commands:
                answer = await self._post_end(plane, event_set, sent, patience_s, sending)
            else:
                answer = await plane.post_events(part.path, sent, event_set.headers, patience_s=patience_s)
        except NotSent as error:
            event_set.was_tried = not first_try
            return None, SendStatus.PASSING, str(error)
        except TransportError as error:
            return None, SendStatus.PASSING, str(error)
        how, body = judge(answer, first_try=first_try, has_own_id=part.has_own_id), answer.json()
        is_again = type(body) is dict and "duplicate" in body and body["duplicate"] is True
        if how is SendStatus.NEW_ID or (answer.status == 202 and is_again):
            how = await self._looked_into(plane, event_set, body, how)
        if how is SendStatus.ACCEPTED:
            if not answer.status < 300 and part.issues_commands:
                self.watch.look_at(plane, event_set)
        elif how is SendStatus.NEW_ID:
            event_set.own_id, event_set.was_tried = self.ids.above(event_set.own_id), False
        if how is SendStatus.LOST:
            if not event_set.can_be_rescued:  # nothing of it brings an execution on
                log.error("batch_not_rescued", **event_set.who(), advice=NOT_RESCUED_ADVICE)
                return answer, SendStatus.ACCEPTED, ""
            log.warning("batch_rescued", **event_set.who())
            event_set.rescue(unqueued_batch(body) or str(body.get("request_id")))
            return (
                answer,
                SendStatus.PASSING,
                "its events are stored, and were never processed: step.exit is sent again",
            )
        if how is not SendStatus.ACCEPTED:
            return answer, how, str(refusal(part.path, answer))
        if event_set.rules.forgets_batches:
            self.on_accepted(plane, event_set, body)
        return answer, how, ""

    @staticmethod
    def _not_stored(event_set: EventSet, reason: str) -> None:
        if event_set.rules.inlines_unstored_results:
            log.warning("result_not_stored", **event_set.who(), reason=reason, sent="complete, in the event")
        else:
            log.error("result_not_stored", **event_set.who(), reason=reason, sent="as a failure of the command")
            metrics.EVENT_EMIT_FAILED.inc()
        event_set.not_stored(redaction.excerpt(reason, _MAX_REASON_CHARS))

    @staticmethod
    async def _try_to_store(
        plane: Plane, event_set: EventSet, upload: Upload, patience_s: float | None
    ) -> tuple[Response | None, SendStatus, str]:
        """As `_try`, for a result that goes to the result store.

        The Python plane may still be at a PUT that had no answer, and a second one would hold up everybody for as long
        again (protocol/results.md#redaction): it is not repeated.
        """
        execution_id, may_still_run = event_set.execution_id, event_set.rules.looks_through_results
        if event_set.was_tried and may_still_run:
            return None, SendStatus.REFUSED, "it was sent before, and the control plane may still be at it"
        event_set.was_tried = True
        try:
            answer = await plane.store_result(
                execution_id, upload.name, upload.data, source_step=upload.source_step, patience_s=patience_s
            )
        except NotSent as error:
            event_set.was_tried = False
            return None, SendStatus.PASSING, str(error)
        except TransportError as error:
            return None, SendStatus.REFUSED if may_still_run else SendStatus.PASSING, str(error)
        event_set.was_tried = answer.status in CUT_BY_A_PROXY
        if event_set.was_tried and may_still_run:
            return answer, SendStatus.REFUSED, str(refusal("PUT result", answer))
        how, body = judge(answer, first_try=True), json_body(answer)
        fields = body if isinstance(body, dict) else {}
        if how is SendStatus.ACCEPTED and not isinstance(fields.get("ref"), str):
            how = SendStatus.UNCERTAIN  # not the store's answer: the result is nowhere yet
        # Too large is too large, whoever says so; a 404 in the plane's own words: it has no result store.
        has_no_store = answer.status == 404 and "not found" in str(fields.get("detail", fields.get("error"))).lower()
        if how is SendStatus.UNCERTAIN and (answer.status == 413 or has_no_store):
            how = SendStatus.REFUSED
        return answer, how, str(refusal("PUT result", answer))

    async def _looked_into(self, plane: Plane, event_set: EventSet, body: Any, how: SendStatus) -> SendStatus:
        """What the plane's events add to its answer: a taken id can be our own (a proxy has sent the request twice, and
        the second was answered first), and the Python plane can hold the rows and never process them. That it says with
        a 503, or, when that answer was lost, with "duplicate" to the same key (protocol/batches.md#rescue).
        """
        if how is SendStatus.NEW_ID:
            return SendStatus.ACCEPTED if await is_stored(plane, event_set) else how
        ask = partial(plane.batch_state, str(body.get("request_id")))
        try:  # what is late is sent again, and is a duplicate then: its state is waited for before it is accepted
            state = await until_it_passes("the state of a batch", ask)
        except ControlPlaneError as error:
            log.warning("batch_state_unknown", **event_set.who(), error=str(error))
            return how
        return SendStatus.LOST if state.was_never_processed else how

    @staticmethod
    def _delay_s(tries: int, answer: Response | None) -> float:
        header_s = retry_after_s(answer) if answer is not None else None
        return floor_s(header_s) + backoff.delay_s(tries, 0.2, _MAX_DELAY_S, jitter=0.9)
