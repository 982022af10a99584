"""Reporting: sends the requests of an event set until the plane has accepted every request.

The plane's rules give the meaning of an answer (`judge`). If the plane does not accept a request, the event set is
written to the outbox. The command then gives up its slot, because the set is safe on disk and may wait for long. A set
becomes late when the worker has been sending it for LATE_S seconds, or as soon as the claim is uncertain. A late set is
sent only after the plane has confirmed that this worker still has the command. After this confirmation, the worker has
LATE_S again. A rescue, which replaces a batch that the plane will never process, needs no confirmation.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import structlog

from noetl_worker.errors import ClaimLost, Interrupted, NotSent, TransportError
from noetl_worker.models import backoff
from noetl_worker.models.claim import AlreadyFinished
from noetl_worker.models.stopping import Stopping
from noetl_worker.models.wire import Dialect
from noetl_worker.observability import metrics
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.report.outcomes import Outcomes
from noetl_worker.pipeline.report.sending import Ownership, Sending
from noetl_worker.pipeline.report.storing import try_to_store
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.remote.plane.answers import MEANING, Meaning, min_retry_delay_s, retry_after_s
from noetl_worker.remote.plane.client import Plane, refusal
from noetl_worker.remote.plane.patience import STORE_UNCERTAIN_S, UNCERTAIN_S
from noetl_worker.remote.plane.send_status import NOT_CLEAR, SendStatus
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text
from noetl_worker.text.secrets import redaction

log = structlog.get_logger("noetl_worker.events")
LATE_S: Final = 30.0
"""Seconds from the first request of an event set, or from the plane's last confirmation of the claim, after which the
plane may have given the claim to another worker (protocol/claim.md#leases: a stale holder)."""
_MAX_DELAY_S: Final = 10.0
_MAX_REASON_CHARS: Final = 500
SLOW_REPORT_S: Final = 0.5
"""Seconds for which a command keeps its slot while the plane processes the request with the command's last event. In
this request the Rust plane issues the next commands, which may take long."""


_DROPPED_ADVICE: Final = "do nothing: another worker has the command, or it is over"


class Emitter:
    """Sends the event sets of all commands of a worker. A worker has one Emitter and calls `deliver` concurrently."""

    def __init__(self, outcomes: Mapping[Dialect, Outcomes], outbox: Outbox, stopping: Stopping | None = None) -> None:
        self.outcomes = outcomes
        self.outbox = outbox
        self.stopping: Final = stopping or Stopping()
        self._sending: dict[str, list[asyncio.Future[None]]] = {}
        """Waiting callers of `deliver`, by the key of the event set that is being sent. Each waits to send a set with
        the same key."""
        self.issuing: Final[dict[str, bool]] = {}
        """Event sets (by key) whose last request the Rust plane is processing now. In this request the plane issues the
        next commands, so the worker should not cut the request off. The value is True if a command of this
        process waits for the answer. It is False if a dead process left the outcome, or if the outcome was accepted
        before and is sent again."""

    async def deliver(
        self,
        plane: Plane,
        event_set: EventSet,
        ownership: Ownership,
        free_slot: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Send a command's event set (its terminal events), and return when the plane has accepted the set.

        Args:
            free_slot: returns a context manager that gives up the command's slot while it is open. None: the command
                has no slot.

        Raises:
            ServerRefused: the plane will never accept this set.
            ClaimLost: the set was late, and the command is no longer ours.
            Interrupted, asyncio.CancelledError: the worker stops. If the outbox is in use, the requests that are not
                accepted yet are in it.
        """
        # On a Rust plane, a dead process's outcome may have the same claim as a command that this process runs. The set
        # that comes second waits for the first.
        key, is_second = event_set.key, event_set.key in self._sending
        try:
            while key in self._sending:
                waiter = asyncio.get_running_loop().create_future()
                self._sending[key].append(waiter)
                await waiter
            self._sending[key] = []
            now = time.monotonic()
            is_uncertain = is_second or ownership.is_uncertain(now)
            sending = Sending(-math.inf if is_uncertain else now + LATE_S, free_slot)
            try:
                await self._deliver(plane, event_set, ownership, sending, now)
            finally:
                sending.take_slot_back()
                for waiter in self._sending.pop(key):  # the next caller goes on
                    if not waiter.done():
                        waiter.set_result(None)
        except (asyncio.CancelledError, Interrupted):
            self.outbox.write(event_set)
            raise
        except ClaimLost as lost:
            metrics.OUTCOMES_DROPPED.inc()
            log.warning("outcome_dropped", **event_set.log_ids(), reason=lost.claim.reason, advice=_DROPPED_ADVICE)
            raise

    async def stop(self) -> None:
        """Stop the background tasks in which the worker asks planes about terminal events."""
        for outcomes in self.outcomes.values():
            await outcomes.stop()

    async def _deliver(
        self, plane: Plane, event_set: EventSet, ownership: Ownership, sending: Sending, now: float
    ) -> None:
        outcomes = self.outcomes[event_set.dialect]
        outcomes.assign_event_id(event_set)
        if self.outbox.writes_first:
            self.outbox.write(event_set)
        try:
            while event_set.is_open:
                since, name = now, event_set.last_event
                try:
                    await self._send(plane, event_set, ownership, sending, since)
                finally:
                    now = time.monotonic()
                    metrics.EMITTED[name].observe(now - since)
                if sending.tries:
                    sending.reset()
                if event_set.is_open:
                    outcomes.assign_event_id(event_set)
                self.outbox.accepted(event_set)
        except Interrupted:
            raise
        except Exception:
            self.outbox.drop(event_set)
            raise

    async def _send(
        self, plane: Plane, event_set: EventSet, ownership: Ownership, sending: Sending, now: float
    ) -> None:
        while True:
            upload = event_set.report.upload
            gate = plane.gate if upload is None else plane.store_gate
            known_s = sending.known_until - now
            is_late = known_s < 0 and not event_set.is_rescue
            if (is_late or not gate.has_room()) and sending.has_slot:  # the set has to wait, so it goes to disk
                self._write(event_set, sending)
            if is_late:
                await self._confirm(plane, event_set, ownership)
                if not event_set.is_open:
                    return
                sending.known_until, known_s = time.monotonic() + LATE_S, LATE_S
            # The wait at the gate ends when the set becomes late: the plane is then asked about the claim first.
            patience_s = None if event_set.is_rescue else known_s
            if upload is None:
                body, most = event_set.body(), plane.server.batch_bytes or event_set.rules.batch_bytes
                if most is not None and not json_text.fits(body, most) and await self._cut(event_set, most):
                    return
                answer, how, reason = await self._try(plane, event_set, body, patience_s, sending)
            else:
                answer, how, reason = await try_to_store(plane, event_set, upload, patience_s)
            if how is SendStatus.ACCEPTED and answer is not None:
                event_set.accepted(answer.json())
                return
            sending.count(how)
            # Without the result store the command would fail, so the worker repeats an uncertain request for longer.
            costs_result = upload is not None and not event_set.rules.inlines_unstored_results
            is_over = sending.uncertainty.is_over(STORE_UNCERTAIN_S if costs_result else UNCERTAIN_S)
            is_refused = how is SendStatus.REFUSED or (how is not SendStatus.PASSING and is_over)
            if is_refused and upload is not None:
                self._not_stored(event_set, reason)
                return
            if answer is not None and is_refused:
                await self._refused(plane, event_set, answer, sending)
                return
            if answer is not None and MEANING[answer.status] is Meaning.AUTH:
                # The plane would refuse the next claim too, so the worker pauses pulling.
                plane.client.auth_refused(plane.url)
            await self._wait(event_set, sending, answer, reason)
            now = time.monotonic()
            if ownership.is_uncertain(now):  # another worker may have finished the command while we waited
                sending.known_until = -math.inf

    async def _wait(self, event_set: EventSet, sending: Sending, answer: Response | None, reason: str) -> None:
        """Write the set to the outbox, then sleep until the next try. Raise Interrupted if the worker is stopping and
        its grace period is over."""
        self._write(event_set, sending)
        metrics.EVENT_EMIT_RETRIES.labels(event_set.last_event).inc()
        header_s = retry_after_s(answer) if answer is not None else None
        delay_s = min_retry_delay_s(header_s) + backoff.delay_s(sending.tries, 0.2, _MAX_DELAY_S, jitter=0.9)
        log.warning(
            "events_not_accepted",
            **event_set.log_ids(),
            tries=sending.tries,
            next_try_s=round(delay_s, 2),
            reason=reason,
            advice="look at `reason`, the control plane's answer; the outcome is sent again until it is accepted",
        )
        if self.stopping.is_grace_over:  # this was the last try
            raise Interrupted
        await self.stopping.sleep(delay_s)

    async def _confirm(self, plane: Plane, event_set: EventSet, ownership: Ownership) -> None:
        """Ask the plane whether this worker still has the command. Raise ClaimLost if another worker has the command or
        the command is over. If the events of this set have finished the command, do not raise."""
        try:
            await ownership.confirm()
        except ClaimLost as lost:
            may_be_ours = event_set.was_tried and isinstance(lost.claim, AlreadyFinished)
            if not may_be_ours or not await self.outcomes[event_set.dialect].is_stored(plane, event_set):
                raise

    def _write(self, event_set: EventSet, sending: Sending) -> None:
        """Write the event set to the outbox on disk. If that succeeds, give up the command's slot."""
        # Until the result is stored, a row that is there needs no change. It may be large, so it is not written again.
        is_there = event_set.report.upload is not None and self.outbox.has(event_set)
        if is_there or self.outbox.write(event_set):
            sending.give_slot_up()

    async def _refused(self, plane: Plane, event_set: EventSet, answer: Response, sending: Sending) -> None:
        """Handle the plane's final refusal of a request. If the events were too large for the plane, move the result
        out of the events and return. Otherwise raise ServerRefused."""
        limit = event_set.rules.batch_limit(answer.body)
        if limit is not None:
            plane.server.batch_bytes = limit
            if await self._cut(event_set, limit):
                return
        raise refusal(f"{event_set.last_event} after {sending.tries} tries", answer)

    @staticmethod
    async def _cut(event_set: EventSet, most: int) -> bool:
        """Move the result out of the events, to a request to the result store. Return False if the events have no
        result."""
        if not await finished_off_loop(partial(event_set.shrink, most)):
            return False
        advice = (
            "do nothing: the result goes to the result store. If the store refused the result before, the command is "
            "reported as failed, without the result"
        )
        log.info("result_left_out_of_event", **event_set.log_ids(), bytes=event_set.size, limit=most, advice=advice)
        event_set.was_tried = False
        return True

    async def _post_last_event(
        self, plane: Plane, event_set: EventSet, body: bytes, patience_s: float | None, sending: Sending
    ) -> Response:
        part = event_set.next_request
        slow: asyncio.TimerHandle | None = None

        def store_and_free_slot() -> None:
            self._write(event_set, sending)
            sending.give_slot_up()  # even if the disk fails: the command's own work is done

        def sent() -> None:
            nonlocal slow
            self.issuing[event_set.key] = sending.free_slot is not None
            slow = asyncio.get_running_loop().call_later(SLOW_REPORT_S, store_and_free_slot)

        try:
            return await plane.post_events(part.path, body, {}, patience_s=patience_s, on_sent=sent)
        finally:
            self.issuing.pop(event_set.key, None)
            if slow is not None:
                slow.cancel()

    async def _try(
        self, plane: Plane, event_set: EventSet, sent: bytes, patience_s: float | None, sending: Sending
    ) -> tuple[Response | None, SendStatus, str]:
        """Send the set's next request once. Return the plane's answer or None, the answer's meaning, and the reason why
        the request is not accepted."""
        first_try, event_set.was_tried, part = not event_set.was_tried, True, event_set.next_request
        try:
            if part.has_own_id:
                answer = await self._post_last_event(plane, event_set, sent, patience_s, sending)
            else:
                answer = await plane.post_events(part.path, sent, event_set.headers, patience_s=patience_s)
        except NotSent as error:
            event_set.was_tried = not first_try
            return None, SendStatus.PASSING, str(error)
        except TransportError as error:
            return None, SendStatus.PASSING, str(error)
        outcomes = self.outcomes[event_set.dialect]
        how = plane.rules.judge(answer, first_try=first_try, has_own_id=part.has_own_id)
        if how in NOT_CLEAR:
            how = await outcomes.judge_by_records(plane, event_set, answer, how)
        if how is not SendStatus.ACCEPTED:
            return answer, how, str(refusal(part.path, answer))
        outcomes.accepted(plane, event_set, answer)
        return answer, how, ""

    @staticmethod
    def _not_stored(event_set: EventSet, reason: str) -> None:
        is_inlined = event_set.rules.inlines_unstored_results
        if not is_inlined:
            metrics.EVENT_EMIT_FAILED.inc()
        (log.warning if is_inlined else log.error)(
            "result_not_stored",
            **event_set.log_ids(),
            reason=reason,
            sent="complete, in the event" if is_inlined else "as a failure of the command",
            advice="look at `reason`, the store's answer, and correct the result store of the control plane",
        )
        event_set.not_stored(redaction.excerpt(reason, _MAX_REASON_CHARS))
