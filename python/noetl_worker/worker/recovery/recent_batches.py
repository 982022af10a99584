"""Batches that the Python plane has accepted (202) and, as far as this worker knows, not yet processed.

The plane answers before it processes a batch, and a restart of the plane loses the queued batches (seen: 40 of 502
commands, protocol/batches.md#after-the-answer). So the worker remembers its latest batches until the plane says what
became of them. In ordinary times the worker asks about some batches, every CHECK_S seconds or when many are remembered.
After an outage, or once the plane does not know a batch, the worker asks about each batch. A batch that the plane does
not know is sent again. A batch that the plane has stored and never processes is rescued: another request replaces it. A
batch for a command of a loop cannot be rescued, so it is logged. A drain waits for all batches. A killed worker forgets
its batches.

The plane never says that a batch is lost: the state of a lost batch stays `accepted` for ever, because the plane reads
the state from the event log. The order of batches shows a loss, because one engine processes the queue in order. A
batch counts as lost if it was accepted before an outage and still waits, although a later batch was complete at the
previous check.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from noetl_worker.errors import ControlPlaneError, ServerRefused
from noetl_worker.models import backoff
from noetl_worker.models.stopping import Stopping
from noetl_worker.observability import metrics
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.process import event_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.patience import is_passing
from noetl_worker.remote.plane.python.batch_state import BatchState
from noetl_worker.worker.recovery.batch_events import BatchEvents

CHECK_S: Final = 15.0
"""Seconds from a new batch until the worker asks the plane about the remembered batches."""
OVERDUE_S: Final = 600.0
"""Seconds from the worker's first check of a batch until the batch is overdue, if the plane has not processed it. The
plane itself warns after 15 s. A batch from before an outage counts as lost once it is overdue. Any other overdue batch
is only logged."""
_OBJECT_BYTES: Final = 4096
"""Approximate size of a batch's Python objects, not counting the text of its events."""
_BYTES_WITHOUT_EVENTS: Final = 1024
"""Approximate size in bytes of a batch of which the worker remembers only the ids. The worker drops the events of its
oldest batches to save memory."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Maximum size in bytes of the remembered batches, enough for about 1,500 usual batches. A plane queues at most 1,024
batches (protocol/batches.md#after-the-answer)."""
MANY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of new batches after which the worker asks at once which batches the plane has processed. Processed batches are
forgotten, which frees memory."""
_UNSEEN: Final = -1
"""Value of `_Accepted.outages` for a batch that the plane reports as a duplicate. The plane has accepted it at an
unknown earlier time, and an outage may have happened since then."""
_NOT_RESCUED_ADVICE: Final = (
    "look at the execution, and start it again if it stays RUNNING or lacks items of its loop: the control plane has "
    "stored the outcome of this command and never processes it. The worker does not send it again: for an item of a "
    "loop the plane would issue items again that have run, and it ignores a second outcome of a list of tasks"
)
LOOK_ADVICE: Final = "look at the execution, and start it again if it stays RUNNING"
_DRAIN_DELAYS_S: Final = (0.1, 1.0)
"""First and longest pause in seconds between two requests that ask a plane about event batches during a drain."""
_FULL_ADVICE: Final = (
    "if the control plane is restarted now, look for executions that stay RUNNING: more batches wait for it than this "
    "worker can remember. noetl_worker_batches_not_watched_total counts the batches that it no longer watches"
)
_RESCUED_ADVICE: Final = "do nothing; if there are many, look in the plane's log why it loses batches"
_FORGOTTEN_ADVICE: Final = "do nothing: the control plane does not know this batch, and its events are sent again"
_CHECK_ADVICE: Final = "look at `error` if this lasts; the control plane is asked again"
log = structlog.get_logger("noetl_worker.events")


class NamedOutcome(NamedTuple):
    """The ids of an outcome whose events were dropped to save memory."""

    execution_id: int
    ids: Mapping[str, object]

    def log_ids(self) -> dict[str, object]:
        return dict(self.ids)


@dataclass(slots=True, eq=False)
class _Accepted:
    """An event batch that the Python plane has accepted and may not have processed. It has the terminal events of a
    command."""

    batch: str
    plane: Plane
    event_set: EventSet | NamedOutcome
    bytes: int
    """Approximate size of the event batch in the worker's memory, in bytes."""
    sent: int
    """Index of this batch among the requests that report the outcome, from 0."""
    outages: int
    """Number of the plane's outages when the plane was last known to have the batch. A higher number now shows an
    outage since then."""
    seen_at: float = math.inf
    """Monotonic time of the first periodic check that included this event batch; infinite before."""
    overtaken_at: float = math.inf
    """Monotonic time of the first check that found a later event batch complete; infinite before."""
    was_before_outage: bool = False
    """True if an outage (perhaps a restart) may have made the plane lose this event batch after accepting it."""
    is_resolved: bool = False
    """True if the worker need not ask the plane about this event batch again."""

    @property
    def is_overdue(self) -> bool:
        return time.monotonic() - self.seen_at > OVERDUE_S

    def log_ids(self) -> dict[str, object]:
        return {**self.event_set.log_ids(), "batch": self.batch}

    def forget_events(self) -> None:
        """Drop the events of this batch to save memory. The batch can then be logged, but not be sent again."""
        self.event_set, self.bytes = (
            NamedOutcome(self.event_set.execution_id, self.event_set.log_ids()),
            _BYTES_WITHOUT_EVENTS,
        )


class LostOutcome(NamedTuple):
    """An outcome to be sent again, because the plane has lost it or will never process it."""

    plane: Plane
    event_set: EventSet
    batch: str


class RecentBatches:
    """The event batches of one worker that the Python plane has accepted, and may lose before it processes them.

    `lost` queues the outcomes to be sent again (worker/recovery/adoption.py).

    Args:
        most_bytes: maximum size of the remembered batches, in bytes.
        many_bytes: bytes of new batches after which the worker asks the plane at once which batches it has processed.
    """

    def __init__(self, *, most_bytes: int = MAX_BYTES, many_bytes: int = MANY_BYTES) -> None:
        self._most_bytes, self._many_bytes = most_bytes, many_bytes
        self.lost: Final[asyncio.Queue[LostOutcome]] = asyncio.Queue()
        self._recent: deque[_Accepted] = deque()
        self._with_events: deque[_Accepted] = deque()
        """Batches of `_recent` that still have their events and can be sent again."""
        self._bytes = 0
        self._ask_above: float = many_bytes
        self._found_completed: set[str] = set()
        """Ids of the completed batches that the present check has found, also of other workers' batches."""
        self._has_logged_full = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def accepted(self, plane: Plane, event_set: EventSet, answer: Mapping[str, Any]) -> None:
        """Remember a batch that the plane has accepted.

        Args:
            event_set: the command's terminal events. Call this method before `EventSet.accepted`, which moves on to
                the next request.
            answer: the plane's answer. Without a `request_id` the request was no batch.
        """
        if "request_id" not in answer:
            return
        batch = answer["request_id"]
        is_again = "duplicate" in answer and answer["duplicate"] is True
        taken, outages = event_set.size + _OBJECT_BYTES, _UNSEEN if is_again else plane.gate.outages
        accepted = _Accepted(batch, plane, event_set, taken, event_set.sent, outages)
        self._recent.append(accepted)
        self._with_events.append(accepted)
        self._bytes += taken
        if is_again:  # an older batch was added late: batches are remembered in the order of their ids
            self._remember(sorted(self._recent, key=lambda one: _number(one.batch)))
        while self._bytes > self._most_bytes:
            self._make_room()
        if self._timer is None:
            self._arm()
        if self._bytes > self._ask_above:
            self._begin()

    def _remember(self, batches: Iterable[_Accepted]) -> None:
        """Replace the remembered batches by `batches`, in this order, and add up their sizes anew."""
        self._recent = deque(batches)
        self._with_events = deque([one for one in self._recent if not isinstance(one.event_set, NamedOutcome)])
        self._bytes = sum([one.bytes for one in self._recent])

    def _make_room(self) -> None:
        """Free memory: drop the events of the oldest batch that still has events. If no batch has events, forget the
        oldest batch."""
        if self._with_events:
            oldest = self._with_events.popleft()
            self._bytes -= oldest.bytes - _BYTES_WITHOUT_EVENTS
            oldest.forget_events()
            return
        oldest = self._recent.popleft()
        self._bytes -= oldest.bytes
        metrics.BATCHES_NOT_WATCHED.inc()
        if not self._has_logged_full:  # once per check: there may be thousands
            self._has_logged_full = True
            log.warning("batches_not_watched", **oldest.log_ids(), limit_bytes=self._most_bytes, advice=_FULL_ADVICE)

    # ── the end of the worker ──

    async def drain(self, stopping: Stopping, until: float) -> None:
        """Ask the plane about the batches until it has processed all of them. Stop at `until`, or when a second stop
        signal ends the drain.

        Args:
            until: monotonic time at which to stop asking.
        """
        asking = asyncio.ensure_future(self._ask_until_none_is_open())
        await stopping.sleep(max(0.0, until - time.monotonic()), asking)
        await event_loop.end(asking)

    async def _ask_until_none_is_open(self) -> None:
        await self.lost.join()
        tries = 0
        while self._recent:
            if not self._tasks:
                self._begin()
            await asyncio.wait(self._tasks)
            await self.lost.join()
            tries += 1
            if self._recent:
                await asyncio.sleep(backoff.delay_s(tries, *_DRAIN_DELAYS_S, jitter=0.0))

    async def stop(self) -> None:
        """Stop asking the plane about the batches. Log each batch that the plane may not have processed: no worker
        will ask about that batch again."""
        await event_loop.end(*self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self.lost.qsize()):
            lost = self.lost.get_nowait()
            not_rescued(lost.event_set, lost.batch, LOOK_ADVICE, STOPPED)
        for accepted in [one for one in self._recent if not one.is_resolved]:
            if accepted.was_before_outage or accepted.outages != accepted.plane.gate.outages:
                not_rescued(accepted.event_set, accepted.batch, LOOK_ADVICE, STOPPED)
            else:
                log.warning("batch_left_open", **accepted.log_ids(), advice=_OPEN_ADVICE)
        self._recent.clear()

    # ── what became of them ─────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        self._ask_above = self._bytes + self._many_bytes
        if self._recent:
            self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._begin)

    def _begin(self) -> None:
        self._ask_above = math.inf  # until this check is over
        if self._timer is not None:
            self._timer.cancel()
        task = asyncio.ensure_future(self._check())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self) -> None:
        now = time.monotonic()
        for accepted in self._recent:
            accepted.seen_at = min(accepted.seen_at, now)
        try:
            for url, plane in {accepted.plane.url: accepted.plane for accepted in self._recent}.items():
                await self._ask(plane, [accepted for accepted in self._recent if accepted.plane.url == url])
        finally:
            self._timer = None
            self._has_logged_full = False
            self._arm()

    async def _ask(self, plane: Plane, batches: Sequence[_Accepted]) -> None:
        self._found_completed.clear()
        try:
            await self._resolve(plane, batches)
        except ControlPlaneError as error:  # the next plane is asked all the same
            _check_failed(plane, batches, error)
        now, latest = time.monotonic(), max(map(_number, self._found_completed), default=0)
        for accepted in batches:
            if not accepted.is_resolved and _number(accepted.batch) < latest:
                accepted.overtaken_at = min(accepted.overtaken_at, now)
        self._remember([accepted for accepted in self._recent if not accepted.is_resolved])

    async def _resolve(self, plane: Plane, batches: Sequence[_Accepted]) -> None:
        """Ask the plane what became of the batches. Mark each batch as resolved as soon as its state is known. If a
        later request fails, the next check leaves out resolved batches, so that no outcome is sent twice."""
        outages = plane.gate.outages
        for accepted in batches:
            accepted.was_before_outage |= accepted.outages != outages
        if not (self._is_clear(batches, outages) and await self._resolve_by_sample(batches)):
            await self._resolve_each(plane, batches)

    def _is_clear(self, batches: Sequence[_Accepted], outages: int) -> bool:
        """Return True if the states of three batches may stand for all batches (`_resolve_by_sample`). The worker must
        ask the plane about each batch after an outage, or if the first batch is overdue or any batch seems lost."""
        was_there = {accepted.outages for accepted in batches} == {outages}
        is_lost = any(accepted.was_before_outage and self._is_lost(accepted) for accepted in batches)
        return was_there and not batches[0].is_overdue and not is_lost

    async def _resolve_each(self, plane: Plane, batches: Sequence[_Accepted]) -> None:
        outages = plane.gate.outages
        log.info("batches_checked", count=len(batches), server_url=plane.url)
        by_execution: dict[int, list[_Accepted]] = defaultdict(list)
        for accepted in batches:
            by_execution[accepted.event_set.execution_id].append(accepted)
        for execution_id, of_execution in by_execution.items():
            events = BatchEvents(plane, execution_id)
            try:
                for accepted in of_execution:
                    accepted.is_resolved = await self._is_resolved(accepted, events)
            except ControlPlaneError as error:
                if is_passing(error):
                    raise
                _check_failed(plane, of_execution, error)  # the error concerns this execution only
            else:
                for accepted in of_execution:
                    accepted.outages = outages

    async def _resolve_by_sample(self, batches: Sequence[_Accepted]) -> bool:
        """Resolve batches by the states of the first, the middle and the last batch. Return False if these states do
        not suffice: the plane does not know one of the three batches, or batches were not processed in order.

        The plane processes batches in order, so all batches before a complete batch are complete. But each process of a
        plane has a queue of its own (read in the plane's source). If one process loses its queue, later batches of
        another process may be complete. So the worker asks about three batches, not one.
        """
        at = sorted({0, (len(batches) - 1) // 2, len(batches) - 1})
        states = [await _state(batches[one]) for one in at]
        over = {batches[one]: state for one, state in zip(at, states, strict=True) if state and state.is_over}
        self._found_completed.update(one.batch for one, state in over.items() if state.status == "completed")
        if None in states or [*over] != [batches[one] for one in at[: len(over)]]:
            return False
        for accepted, state in over.items():
            if state.status == "failed":
                events = BatchEvents(accepted.plane, accepted.event_set.execution_id)
                await self._is_resolved(accepted, events)
                accepted.is_resolved = True  # before the next question, which may fail: a rescue is sent only once
        for accepted in batches[: at[len(over) - 1] + 1] if over else ():
            accepted.is_resolved = True
        return True

    def _is_lost(self, accepted: _Accepted) -> bool:
        """Return True if the plane has lost the batch, although the plane still reports the batch as waiting. A batch
        from before an outage is lost if it is overdue (OVERDUE_S). It is also lost if an earlier check has found that
        the plane had completed a later batch."""
        is_overtaken = time.monotonic() - accepted.overtaken_at > CHECK_S / 2  # found by an earlier check
        return accepted.was_before_outage and (is_overtaken or accepted.is_overdue)

    async def _is_resolved(self, accepted: _Accepted, events: BatchEvents) -> bool:
        has_ended = await events.has("batch.completed", accepted.batch)
        self._found_completed.update(await events.batches("batch.completed"))
        state = None if has_ended else await _state(accepted)
        if has_ended or (state is not None and state.status == "completed"):
            self._found_completed.add(accepted.batch)
            return True
        if state is None:
            await self._unknown(accepted, events, has_ended)
        elif state.status == "failed":
            await self._failed(accepted, events, state)
        elif self._is_lost(accepted):
            self._lost(accepted, is_stored=True, has_begun=state.status == "processing")
        elif accepted.is_overdue:
            _name("batch_overdue", accepted.event_set, accepted.batch, state=state.status, advice=LOOK_ADVICE)
        else:
            return False
        return True

    async def _failed(self, accepted: _Accepted, events: BatchEvents, state: BatchState) -> None:
        has_begun = await events.has("batch.processing", accepted.batch)
        if state.was_never_processed or has_begun is False:
            self._lost(accepted, is_stored=True, has_begun=False)
        else:  # the plane's engine failed while it processed the batch: nobody knows how far it came
            said = {"error_code": state.error_code, "error": state.message}
            _name("batch_failed", accepted.event_set, accepted.batch, **said, advice=LOOK_ADVICE)

    async def _unknown(self, accepted: _Accepted, events: BatchEvents, has_ended: bool | None) -> None:
        """Handle a batch that the plane does not know any more: send its events again, or log the batch if that is not
        safe."""
        has_begun = await events.has("batch.processing", accepted.batch)
        is_stored = await events.has("batch.accepted", accepted.batch)
        if not has_begun and None in (has_ended, has_begun, is_stored):
            not_rescued(accepted.event_set, accepted.batch, LOOK_ADVICE, _UNKNOWN)
        else:
            self._lost(accepted, is_stored=is_stored is True, has_begun=has_begun is True)

    def _lost(self, accepted: _Accepted, *, is_stored: bool, has_begun: bool) -> None:
        """Queue a batch that the plane will never process, so that it is sent again. If that is impossible, log it."""
        event_set, batch, plane = accepted.event_set, accepted.batch, accepted.plane
        if has_begun:
            not_rescued(event_set, batch, LOOK_ADVICE, _BEGUN)
        elif isinstance(event_set, NamedOutcome):
            not_rescued(event_set, batch, LOOK_ADVICE, _NO_EVENTS)
        else:
            again = event_set.copy_from_request(accepted.sent)
            if not is_stored:
                log.warning("batch_forgotten", **accepted.log_ids(), advice=_FORGOTTEN_ADVICE)
            elif not rescue(plane, again, batch):
                return
            self.lost.put_nowait(LostOutcome(plane, again, batch))


_BEGUN: Final = (
    "the control plane was restarted while it processed this outcome, and may have issued commands before that"
)
_UNKNOWN: Final = "the execution has more events than the control plane shows at once"
_NO_EVENTS: Final = (
    "the control plane has lost this outcome, and this worker had dropped its events: too many batches waited at once"
)
STOPPED: Final = (
    "the control plane was down after it had accepted this outcome, and has not processed it; this worker stops"
)
_OPEN_ADVICE: Final = (
    "look at the execution if the control plane is restarted now, and give drains more time "
    "(NOETL_WORKER_DRAIN_TIMEOUT_S, terminationGracePeriodSeconds): this worker stops before the control plane has "
    "processed this outcome"
)


def rescue(plane: Plane, event_set: EventSet, batch: str) -> bool:
    """Turn `event_set` into a replacement for a batch that the plane never processes. Return False if the plane cannot
    replace the batch; this is then logged."""
    if not plane.rules.can_rescue(event_set):
        not_rescued(event_set, batch, _NOT_RESCUED_ADVICE)
        return False
    log.warning("batch_rescued", **event_set.log_ids(), batch=batch, advice=_RESCUED_ADVICE)
    event_set.rescue(batch)
    return True


def not_rescued(event_set: EventSet | NamedOutcome, batch: str, advice: str, reason: str | None = None) -> None:
    """Log a command whose outcome the plane will never process and the worker cannot send again."""
    why = {"reason": reason} if reason is not None else {}
    _name("batch_not_rescued", event_set, batch, advice=advice, **why)


def _name(event: str, event_set: EventSet | NamedOutcome, batch: str, **said: str) -> None:
    metrics.BATCHES_NOT_RESCUED.inc()
    log.error(event, **event_set.log_ids(), batch=batch, **said)


def _number(batch: str) -> int:
    """Return a batch's id as a number. Ids grow with time (snowflakes)."""
    return int(batch) if batch.isdecimal() else 0


def _check_failed(plane: Plane, batches: Sequence[_Accepted], error: ControlPlaneError) -> None:
    """Log an error from asking the plane about `batches`, and stop watching the overdue batches among them. Do
    neither for a temporary error. In both cases the next check asks again about the batches that are still watched."""
    if is_passing(error):
        return
    log.warning("batch_check_failed", count=len(batches), server_url=plane.url, error=str(error), advice=_CHECK_ADVICE)
    for accepted in batches:
        if accepted.is_overdue and not accepted.is_resolved:
            _name("batch_overdue", accepted.event_set, accepted.batch, reason=str(error), advice=LOOK_ADVICE)
            accepted.is_resolved = True


async def _state(accepted: _Accepted) -> BatchState | None:
    try:
        return await accepted.plane.batch_state(accepted.batch)
    except ServerRefused as error:
        if error.status == 404 and "Batch request not found" in error.body:
            return None
        raise
