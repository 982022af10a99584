"""How many slots one execution may take on a worker while others wait (NOETL_WORKER_EXECUTION_SHARE).

What is over its share is returned with a delay, so that the messages behind it are pulled. JetStream counts that as a
delivery, for every worker; here it is no try of the command.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from noetl_worker.remote.jetstream.delivery import Delivery

OTHERS_S: Final = 2.0
"""For so long after the last message of another execution it is taken that more of them wait."""
RETURNED_PER_SLOT: Final = 10
"""Most that are returned in OTHERS_S: each counts against the durable's max_ack_pending until it comes again."""
_MOST_TRIES_KEPT: Final = 4096
ResultT = TypeVar("ResultT")


@dataclass(eq=False, repr=False)
class ExecutionShare:
    """How much of a worker one execution has, and how much it may."""

    slots: int
    """Those of the worker."""
    share: float
    """The part of them, above 0 and below 1."""
    clock: Callable[[], float] = field(default=lambda: time.monotonic())  # looked up late: a simulation replaces it
    draw: Callable[[], float] = field(default=lambda: random.random())

    def __post_init__(self) -> None:
        self.most = max(1, int(self.slots * self.share))
        self._running: Counter[int] = Counter()
        self._last = self._other = (0, float("-inf"))
        """The execution of the last message, and the last other one; each with its time."""
        self._returned, self._returned_since = 0, float("-inf")
        self._tries: dict[int, int] = {}
        """Stream sequence -> how often it was taken here."""

    def delay_s(self, execution_id: int, delivery: Delivery) -> float | None:
        """For how long this delivery is returned; None: it is taken, and its `tries` say how often it was."""
        now = self.clock()
        if self._last[0] != execution_id:
            self._other = self._last
        self._last = (execution_id, now)
        if self._running[execution_id] >= self.most and self._others_wait(now, delivery) and self._may_return(now):
            return OTHERS_S * (0.5 + 0.5 * self.draw())
        tries = self._tries.pop(delivery.stream_sequence, 0) + 1
        self._tries[delivery.stream_sequence] = tries
        if len(self._tries) > _MOST_TRIES_KEPT:
            del self._tries[next(iter(self._tries))]
        delivery.tries = min(tries, delivery.num_delivered)
        return None

    def _others_wait(self, now: float, delivery: Delivery) -> bool:
        """Messages that nobody has looked at yet may be theirs."""
        return delivery.undelivered > 0 or now - self._other[1] < OTHERS_S

    def _may_return(self, now: float) -> bool:
        if now - self._returned_since >= OTHERS_S:
            self._returned, self._returned_since = 0, now
        self._returned += 1
        return self._returned <= self.slots * RETURNED_PER_SLOT

    async def counted(self, execution_id: int, work: Awaitable[ResultT]) -> ResultT:
        """Work of this execution, which takes a slot of its share meanwhile."""
        self._running[execution_id] += 1
        try:
            return await work
        finally:
            self._running[execution_id] -= 1
            if not self._running[execution_id]:
                del self._running[execution_id]
