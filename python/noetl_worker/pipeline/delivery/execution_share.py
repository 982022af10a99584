"""Limit on the slots that one execution may take while other executions wait (NOETL_WORKER_EXECUTION_SHARE).

A command over the limit goes back to the stream for a while. So the worker can pull the messages behind it. JetStream
counts each return as a delivery. This worker does not count a return as a try of the command.
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
"""Seconds for which a message of another execution is taken as a sign that other executions wait."""
RETURNED_PER_SLOT: Final = 10
"""Largest number of messages per slot that this worker returns within OTHERS_S so that other executions get their turn.
The number is limited because a returned message counts against the durable's max_ack_pending until its redelivery."""
_MOST_TRIES_KEPT: Final = 4096
ResultT = TypeVar("ResultT")


@dataclass(eq=False, repr=False)
class ExecutionShare:
    """Counter of each execution's running commands, which decides which deliveries are returned to the stream."""

    slots: int
    share: float
    """Largest fraction of the slots for one execution, above 0 and below 1."""
    clock: Callable[[], float] = field(default=lambda: time.monotonic())  # a lambda: a simulation replaces the clock
    draw: Callable[[], float] = field(default=lambda: random.random())

    def __post_init__(self) -> None:
        self.most = max(1, int(self.slots * self.share))
        self._running: Counter[int] = Counter()
        self._last = self._other = (0, float("-inf"))
        """Execution id and arrival time of two messages: the newest message (`_last`), and the newest message of any
        other execution (`_other`). A recent time in `_other` is a sign that another execution waits for slots."""
        self._returned, self._returned_since = 0, float("-inf")
        self._tries: dict[int, int] = {}
        """Stream sequence -> number of times this worker took the message."""

    def delay_s(self, execution_id: int, delivery: Delivery) -> float | None:
        """Return the delay in seconds with which a delivery goes back to the stream, if its execution has used up
        its slots and other executions wait. Otherwise return None, and count this try in the delivery's `tries`,
        because the worker then runs the command."""
        now = self.clock()
        if self._last[0] != execution_id:
            self._other = self._last
        self._last = (execution_id, now)
        if (
            self._running[execution_id] >= self.most
            and self._is_another_execution_waiting(now, delivery)
            and self._may_return(now)
        ):
            return OTHERS_S * (0.5 + 0.5 * self.draw())
        tries = self._tries.pop(delivery.stream_sequence, 0) + 1
        self._tries[delivery.stream_sequence] = tries
        if len(self._tries) > _MOST_TRIES_KEPT:
            del self._tries[next(iter(self._tries))]
        delivery.tries = min(tries, delivery.num_delivered)
        return None

    def _is_another_execution_waiting(self, now: float, delivery: Delivery) -> bool:
        """Return whether other executions may wait: the stream has undelivered messages, or a message of another
        execution came within OTHERS_S."""
        return delivery.undelivered > 0 or now - self._other[1] < OTHERS_S

    def _may_return(self, now: float) -> bool:
        if now - self._returned_since >= OTHERS_S:
            self._returned, self._returned_since = 0, now
        self._returned += 1
        return self._returned <= self.slots * RETURNED_PER_SLOT

    async def counted(self, execution_id: int, work: Awaitable[ResultT]) -> ResultT:
        """Await `work` and return its result. Meanwhile, count one more running command of the execution."""
        self._running[execution_id] += 1
        try:
            return await work
        finally:
            self._running[execution_id] -= 1
            if not self._running[execution_id]:
                del self._running[execution_id]
