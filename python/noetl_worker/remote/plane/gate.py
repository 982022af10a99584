"""Limit on concurrent requests to one control plane: additive increase, multiplicative decrease.

A refusal (429, 502, 503, 504 or no answer) halves the limit. A slow answer reduces the limit by a quarter. The limit
recovers within 30 s. A plane that refuses several times in a row counts as down. Such a plane gets one request at a
time, at growing intervals. Otherwise a fleet of workers could keep the plane down.

A server error (500) may be the fault of one execution. If several executions get server errors, with no other answer in
between, the plane is at fault, and counts as down.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from noetl_worker.errors import NotSent
from noetl_worker.models import backoff
from noetl_worker.process import event_loop
from noetl_worker.process.threads import OWNER
from noetl_worker.remote.plane.answers import (
    MEANING,
    Meaning,
    is_outage,
    is_server_error,
    min_retry_delay_s,
    retry_after_s,
)

if TYPE_CHECKING:
    from noetl_worker.remote.transport.transport import Response

RECOVERY_S: Final = 30.0
DOWN_AFTER: Final = 3
"""Number of refusals in a row (429, 502, 503, 504 or no answer) after which a plane counts as down. A refusal counts
only if its request was sent after the previous refusal. A plane also counts as down after other server errors (500)
in DOWN_AFTER different executions."""
FAILURES_WITHIN_S: Final = 10.0
"""Seconds within which server errors (500) in DOWN_AFTER different executions make a plane count as down."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 5.0
_SLOW_S: Final = 2.0
_SLOW_TIMES: Final = 10.0
_WEIGHT: Final = 0.05


class Gate:
    """Limit on the concurrent requests to one control plane. A request takes a place at the gate, and frees the place
    when the request ends.

    Args:
        full: largest number of concurrent requests while the plane has no trouble.
    """

    def __init__(self, full: int) -> None:
        self.full: Final = full
        self.inside = 0
        self._reduced_to = float(full)
        self._reduced_at = -math.inf
        self._refused_at = -math.inf
        self._refusals = 0
        self.is_down = False
        self.outages = 0
        """Number of requests that got no answer. The plane may have been restarted after each such request."""
        self.failing: dict[Hashable, float] = {}
        """Executions that got a server error, with the monotonic time of the error. Emptied by an answer that is
        neither a server error nor a refusal."""
        self._closed_until = -math.inf
        self._usual_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def limit(self) -> int:
        """Return the limit on concurrent requests, from 1 to `full`."""
        share = min(1.0, (time.monotonic() - self._reduced_at) / RECOVERY_S)
        return max(1, int(self._reduced_to + (self.full - self._reduced_to) * share))

    def capacity_fraction(self) -> float:
        """Return the share of the largest number of concurrent requests (`full`) that is allowed now: above 0, at most
        1. The share is smallest while the plane is down."""
        return 1 / self.full if self.is_down else self.limit() / self.full

    # ── one request ──

    async def enter(self, patience_s: float | None = None) -> bool:
        """Wait until one more request may be sent to the plane, and take a place at the gate. Return False if no place
        is free within `patience_s` seconds.

        Without `patience_s` the wait has no limit.
        """
        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
        while not self.has_room():
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return False
            await self._wait_for_room(left_s)
        self.inside += 1
        if self.has_room():
            # A request that leaves wakes only one waiting request, which is too few when the limit has grown.
            event_loop.wake_first(self._waiting, None)
        return True

    @asynccontextmanager
    async def place(self, patience_s: float | None) -> AsyncIterator[float | None]:
        """Take a place at the gate for a `with` block. Yield the seconds of `patience_s` that remain after the wait, or
        None without a limit.

        Raises:
            NotSent: no place is free within `patience_s` seconds.
        """
        since = time.monotonic()
        if not await self.enter(patience_s):
            raise NotSent("not sent: the control plane is still storing another large result; try again later")
        try:
            yield None if patience_s is None else max(0.0, patience_s - (time.monotonic() - since))
        finally:
            self.leave()

    def try_enter(self) -> bool:
        """Take a place at the gate for one request, if a place is free now. Return whether a place was taken."""
        # The usual case first, without a call: nothing was refused lately.
        is_quiet = not self.is_down and self._closed_until == -math.inf and self.inside < self._reduced_to
        if not is_quiet and not self.has_room():
            return False
        self.inside += 1
        return True

    def leave(self) -> None:
        """Free the place of a finished request, whatever its result."""
        self.inside -= 1
        if self._waiting:
            event_loop.wake_first(self._waiting, None)

    def note_answer(self, answer: Response, sent_at: float, took_s: float | None, *, is_stored: bool) -> None:
        """Adjust the limit on concurrent requests to an answer of any status: call `refused`, `failed` or `answered`.

        A server error counts only if the request belongs to an execution, since heartbeats say nothing about commands.
        After a server error, a success also counts only if its request belongs to an execution.

        Args:
            sent_at: monotonic time at which the request was sent.
            took_s: seconds that the request took, or None if this time says nothing about the plane's load.
            is_stored: the server error says that the plane has stored the request before. This counts as a success.
        """
        execution = OWNER.get()
        if MEANING[answer.status] is Meaning.OVERLOADED:
            self.refused(sent_at, retry_after_s(answer), is_outage=is_outage(answer))
        elif is_server_error(answer.status) and not is_stored:
            if execution is not None:
                self.failed(sent_at, execution)
        elif execution is not None or not self.failing:
            self.answered(took_s)

    def answered(self, took_s: float | None) -> None:
        """Note an answer of a plane that is not overloaded: the plane no longer counts as down. Reduce the limit on
        concurrent requests if the answer was slow.

        Args:
            took_s: seconds that the request took, or None if this time says nothing about the plane's load.
        """
        self._refusals, self.is_down = 0, False
        if self.failing:
            self.failing = {}
        if took_s is None:
            return
        if took_s > _SLOW_S and took_s > _SLOW_TIMES * self._usual_s and self._usual_s > 0:
            self._reduce(0.75, time.monotonic() - took_s)
        else:
            self._usual_s += _WEIGHT * (took_s - self._usual_s)

    def failed(self, sent_at: float, execution: Hashable) -> None:
        """Note a server error for a request of an execution. After server errors in DOWN_AFTER different executions,
        the plane counts as down.

        Args:
            sent_at: monotonic time at which the request was sent.
            execution: id of the execution.
        """
        now = time.monotonic()
        self.failing = {one: at for one, at in self.failing.items() if now - at < FAILURES_WITHIN_S} | {execution: now}
        if self.is_down or len(self.failing) >= DOWN_AFTER:
            self._refusals = max(self._refusals, DOWN_AFTER - 1)
            self.refused(sent_at)

    def refused(self, sent_at: float, retry_after_s: float | None = None, *, is_outage: bool = False) -> None:
        """Cut the limit on concurrent requests in half after a refusal (429, 502, 503, 504 or no answer). Let no
        request pass during a Retry-After, nor for some seconds after DOWN_AFTER refusals in a row.

        Args:
            sent_at: monotonic time at which the request was sent. Refusals of requests sent together count once.
            retry_after_s: Retry-After of the answer.
            is_outage: no answer came, or only an answer of a proxy. The plane may have been restarted.
        """
        self.outages += is_outage
        now = time.monotonic()
        if sent_at >= self._refused_at:
            self._refusals += 1
            self.is_down = self._refusals >= DOWN_AFTER
            self._refused_at = now
            if self.is_down:
                attempt = self._refusals - DOWN_AFTER + 1
                pause_s = backoff.delay_s(attempt, FIRST_PAUSE_S, MAX_PAUSE_S, jitter=0.5)
                # At least half a second: at most two requests a second while the plane is down.
                self._close(max(FIRST_PAUSE_S, pause_s))
        self._close(min_retry_delay_s(retry_after_s))
        self._reduce(0.5, sent_at)

    def _close(self, pause_s: float) -> None:
        self._closed_until = max(self._closed_until, time.monotonic() + pause_s)

    def _reduce(self, factor: float, sent_at: float) -> None:
        if sent_at >= self._reduced_at:
            self._reduced_to = max(1.0, self.limit() * factor)
            self._reduced_at = time.monotonic()

    # ── waiting ──

    def has_room(self) -> bool:
        """Return whether a request can take a place now, without waiting."""
        if self._closed_until != -math.inf and time.monotonic() < self._closed_until:
            return False
        if self.is_down:
            return self.inside == 0
        return self.inside < self._reduced_to or self.inside < self.limit()

    async def _wait_for_room(self, left_s: float) -> None:
        """Wait at most `left_s` seconds until another request to the plane ends and frees a place at the gate.

        The wait ends earlier at the end of a pause, during which the gate lets no request pass. Without a pause the
        wait ends after a second, because the limit on concurrent requests may have grown by then.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        closed_s = self._closed_until - time.monotonic()
        try:
            await asyncio.wait({place}, timeout=min(left_s, closed_s if closed_s > 0 else 1.0))
        except asyncio.CancelledError:
            if place.done():
                event_loop.wake_first(self._waiting, None)
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
