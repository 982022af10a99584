"""Batches that the Python plane has answered 202 and has not worked off yet, as far as this worker knows.

It answers before it acts, and what waits in it is gone when it is restarted: 40 of 502 commands
(protocol/batches.md#after-the-answer). So the last ones are kept until the plane says what became of them. It is asked
when they are many, rarely else, and thoroughly once a request had no answer or it does not know a batch of ours any
more. What it knows nothing of is sent again; what it has stored and never worked off is rescued, but for a command of a
loop. A worker that dies meanwhile has forgotten them as well.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from noetl_worker.errors import ControlPlaneError, ServerRefused
from noetl_worker.observability import metrics
from noetl_worker.plane.client import Plane
from noetl_worker.plane.patience import is_passing
from noetl_worker.plane.python.batch_events import BatchEvents
from noetl_worker.plane.python.batch_state import BatchState
from noetl_worker.plane.rules import PendingEnd
from noetl_worker.process import event_loop

__all__ = ["CHECK_S", "NOT_RESCUED_ADVICE", "OVERDUE_S", "LostEnd", "RecentBatches"]

CHECK_S: Final = 15.0
"""How long after a batch the plane is asked what became of the last ones, all together."""
OVERDUE_S: Final = 600.0
"""The plane takes 15 s for one batch at most, unless told otherwise. Its sources read what it says of a batch from the
event log: then one that a restart has lost is `accepted` for ever."""
_BYTES_BESIDE: Final = 4096
"""Of a batch, what its objects take beside its text, about."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Some 1,500 usual batches; in a plane 1,024 wait at most (protocol/batches.md#after-the-answer)."""
MANY_BYTES: Final = 2 * 1024 * 1024
"""Of a plane that keeps up, more are not remembered: what it has worked off takes no memory any more."""
_UNSEEN: Final = -1
"""Outages of the plane before a batch that it had already: it may have been down in between."""
NOT_RESCUED_ADVICE: Final = (
    "the control plane has stored the end of this command and never processes it. It is not sent again: for an item of "
    "a loop the plane would issue items again that have run, and of a list of tasks it passes it over. Look at the "
    "execution, and start it again if it stays RUNNING"
)
_LOOK_ADVICE: Final = "look at the execution, and start it again if it stays RUNNING"
_FULL_ADVICE: Final = (
    "more waits for the control plane than can be remembered; if it is restarted now, look for executions that stay "
    "RUNNING. This one and others are counted in noetl_worker_batches_not_watched_total"
)
log = structlog.get_logger("noetl_worker.events")


@dataclass(slots=True, eq=False)
class _Accepted:
    """One batch, and what it was made of."""

    batch: str
    plane: Plane
    end: PendingEnd
    sent: int
    """Of its requests, which one this was."""
    outages: int
    """Of the plane, when it was last known to have the batch."""
    seen_at: float | None = None
    """When a check first found it, on the monotonic clock."""

    @property
    def is_overdue(self) -> bool:
        return self.seen_at is not None and time.monotonic() - self.seen_at > OVERDUE_S

    def who(self) -> dict[str, object]:
        return {**self.end.who(), "batch": self.batch}

    def again(self) -> PendingEnd:
        """As it was before the plane took this request."""
        return self.end.again(self.sent)


class LostEnd(NamedTuple):
    """An end that the plane does not have, or never processes: it is to be sent again."""

    plane: Plane
    end: PendingEnd
    batch: str


class RecentBatches:
    """One for the worker: what its emitter has had accepted.

    `lost` is what has to be sent again (recovery/resending.py).

    Args:
        most_bytes: what is remembered at most.
        many_bytes: so much since the last check, and the plane is asked at once.
    """

    def __init__(self, *, most_bytes: int = MAX_BYTES, many_bytes: int = MANY_BYTES) -> None:
        self._most_bytes, self._many_bytes = most_bytes, many_bytes
        self.lost: Final[asyncio.Queue[LostEnd]] = asyncio.Queue()
        self._recent: deque[_Accepted] = deque()
        self._bytes = 0
        self._ask_above: float = many_bytes
        self._has_logged_full = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def accepted(self, plane: Plane, end: PendingEnd, answer: Mapping[str, Any]) -> None:
        """The plane has taken the first request that is left of this set; a batch has an id in its answer."""
        if "request_id" not in answer:
            return
        batch = answer["request_id"]
        outages = _UNSEEN if "duplicate" in answer and answer["duplicate"] is True else plane.gate.outages
        self._recent.append(_Accepted(batch, plane, end, end.sent, outages))
        self._bytes += end.size + _BYTES_BESIDE
        while self._bytes > self._most_bytes:
            self._forget(self._recent.popleft())
        if self._timer is None:
            self._arm()
        if self._bytes > self._ask_above:
            self._begin()

    def _forget(self, oldest: _Accepted) -> None:
        self._bytes -= oldest.end.size + _BYTES_BESIDE
        metrics.BATCHES_NOT_WATCHED.inc()
        if not self._has_logged_full:  # once a check: there may be thousands
            self._has_logged_full = True
            log.warning("batches_not_watched", **oldest.who(), limit_bytes=self._most_bytes, advice=_FULL_ADVICE)

    async def stop(self) -> None:
        """What it knows is forgotten."""
        self._keep(())
        await event_loop.end(*self._tasks)
        if self._timer is not None:
            self._timer.cancel()

    # ── what became of them ─────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        self._ask_above = self._bytes + self._many_bytes
        if self._recent:
            self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._begin)

    def _begin(self) -> None:
        self._ask_above = math.inf  # until this check is over
        if self._timer is not None:
            self._timer.cancel()
        self._run(self._check())

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self) -> None:
        now = time.monotonic()
        for accepted in self._recent:
            if accepted.seen_at is None:
                accepted.seen_at = now
        try:
            for plane in dict.fromkeys([accepted.plane for accepted in self._recent]):
                await self._ask(plane, [accepted for accepted in self._recent if accepted.plane is plane])
        finally:
            self._timer = None
            self._has_logged_full = False
            self._arm()

    async def _ask(self, plane: Plane, batches: Sequence[_Accepted]) -> None:
        gone: set[_Accepted] = set()
        try:
            await self._settle(plane, batches, gone)
        except ControlPlaneError as error:  # the others are asked about again at the next check
            _check_failed(plane, batches, gone, error)
        self._keep([accepted for accepted in self._recent if accepted not in gone])

    def _keep(self, batches: Collection[_Accepted]) -> None:
        self._recent = deque(batches)
        self._bytes = sum([accepted.end.size for accepted in batches]) + len(batches) * _BYTES_BESIDE

    async def _settle(self, plane: Plane, batches: Sequence[_Accepted], settled: set[_Accepted]) -> None:
        """Add those that need not be asked about again, each as soon as that is known: what is rescued here must not be
        rescued once more when the plane does not answer for the next one."""
        outages = plane.gate.outages
        was_there = {accepted.outages for accepted in batches} == {outages}
        if was_there and not batches[0].is_overdue and await self._has_settled_by_some(batches, settled):
            return
        log.info("batches_checked", count=len(batches), server_url=plane.url)
        by_execution: dict[int, list[_Accepted]] = defaultdict(list)
        for accepted in batches:
            by_execution[accepted.end.execution_id].append(accepted)
        for execution_id, of_execution in by_execution.items():
            events = BatchEvents(plane, execution_id)
            try:
                for accepted in of_execution:
                    if await self._is_settled(accepted, events):
                        settled.add(accepted)
            except ControlPlaneError as error:
                if is_passing(error):
                    raise
                _check_failed(plane, of_execution, settled, error)  # what is wrong with one execution is its own
            else:
                for accepted in of_execution:
                    accepted.outages = outages

    async def _has_settled_by_some(self, batches: Sequence[_Accepted], settled: set[_Accepted]) -> bool:
        """The plane works batches off one after another, so of one that was there all the time the latest that is over
        says everything of those before it. Asked about are the first, the last and the one in the middle: a plane of
        several processes has a queue in each (its source), and what one of them has lost is not over when later ones
        are. False: one of the three is unknown, or they were not worked off one after another."""
        at = sorted({0, (len(batches) - 1) // 2, len(batches) - 1})
        states = [await _state(batches[one]) for one in at]
        over = {batches[one]: state for one, state in zip(at, states, strict=True) if state and state.is_over}
        if None in states or [*over] != [batches[one] for one in at[: len(over)]]:
            return False
        for accepted, state in over.items():
            if state.word == "failed":
                await self._is_settled(accepted, BatchEvents(accepted.plane, accepted.end.execution_id))
                settled.add(accepted)  # at once: the next question may fail, and a rescue is sent once
        settled.update(batches[: at[len(over) - 1] + 1] if over else ())
        return True

    async def _is_settled(self, accepted: _Accepted, events: BatchEvents) -> bool:
        if (has_ended := await events.has("batch.completed", accepted.batch)) is True:
            return True
        state = await _state(accepted)
        if state is not None and state.word != "failed":
            if accepted.is_overdue and not state.is_over:
                log.error("batch_overdue", **accepted.who(), state=state.word, advice=_LOOK_ADVICE)
            return accepted.is_overdue or state.is_over
        has_begun = await events.has("batch.processing", accepted.batch)
        if state is not None and state.has_failed and has_begun is not False:
            said = {"error_code": state.error_code, "error": state.message}
            log.error("batch_failed", **accepted.who(), **said, advice=_LOOK_ADVICE)
            return True
        if state is None:
            is_stored = await events.has("batch.accepted", accepted.batch)
            if has_begun or None in (has_ended, has_begun, is_stored):
                reason = _BEGUN if has_begun else _UNKNOWN
                log.error("batch_not_rescued", **accepted.who(), advice=_LOOK_ADVICE, reason=reason)
                return True
            if not is_stored:
                log.warning("batch_forgotten", **accepted.who(), does="its events are sent again")
                self._lost(accepted, accepted.again())
                return True
        if accepted.end.can_be_rescued:
            log.warning("batch_rescued", **accepted.who())
            again = accepted.again()
            again.rescue(accepted.batch)
            self._lost(accepted, again)
        else:
            log.error("batch_not_rescued", **accepted.who(), advice=NOT_RESCUED_ADVICE)
        return True

    def _lost(self, accepted: _Accepted, end: PendingEnd) -> None:
        self.lost.put_nowait(LostEnd(accepted.plane, end, accepted.batch))


_BEGUN: Final = "the control plane began to process it, and was restarted before the end: it may have issued commands"
_UNKNOWN: Final = "the execution has more events than the control plane shows at once"


def _check_failed(plane: Plane, batches: Sequence[_Accepted], gone: set[_Accepted], error: ControlPlaneError) -> None:
    """They are asked about again; those that are overdue are given up."""
    if is_passing(error):
        return
    log.warning("batch_check_failed", count=len(batches), server_url=plane.url, error=str(error))
    for accepted in [accepted for accepted in batches if accepted.is_overdue and accepted not in gone]:
        log.error("batch_overdue", **accepted.who(), reason=str(error), advice=_LOOK_ADVICE)
        gone.add(accepted)


async def _state(accepted: _Accepted) -> BatchState | None:
    """None: the plane does not know it."""
    try:
        return await accepted.plane.batch_state(accepted.batch)
    except ServerRefused as error:
        if error.status == 404 and "Batch request not found" in error.body:
            return None
        raise
