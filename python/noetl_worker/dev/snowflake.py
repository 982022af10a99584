"""64-bit event ids as a control plane makes them: 41 bits of milliseconds, 10 bits of node, 12 bits of sequence
 (protocol/events.md#ids).

Of several makers with one node number each would begin every millisecond's sequence at 0, and their ids would be the
same: a sequence begins anywhere in its lower half.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["DEFAULT_EPOCH_MS", "Snowflake"]

DEFAULT_EPOCH_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z, as every NoETL component
_NODE_BITS: Final = 10
_SEQUENCE_BITS: Final = 12
_MAX_SEQUENCE: Final = (1 << _SEQUENCE_BITS) - 1


class Snowflake:
    """Makes ids that only grow. Safe to call from several threads."""

    def __init__(
        self,
        node: int,
        *,
        epoch_ms: int = DEFAULT_EPOCH_MS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        first: Callable[[], int] = lambda: random.getrandbits(_SEQUENCE_BITS - 1),
    ) -> None:
        self._node = node & ((1 << _NODE_BITS) - 1)
        self._epoch_ms = epoch_ms
        self._now_ms = now_ms
        self._first = first
        self._lock = threading.Lock()
        self._last_ms = 0
        self._sequence = 0

    def observe(self, event_id: int) -> None:
        """Take note of an id of the plane: every id made from now on is above it."""
        floor_ms = (event_id >> (_NODE_BITS + _SEQUENCE_BITS)) + 1
        if floor_ms <= self._last_ms:  # it only grows, so no lock is needed to see that
            return
        with self._lock:
            if floor_ms > self._last_ms:
                self._last_ms, self._sequence = floor_ms, self._first()

    def next_id(self) -> int:
        with self._lock:
            now_ms = max(0, self._now_ms() - self._epoch_ms)
            if now_ms > self._last_ms:
                self._last_ms, self._sequence = now_ms, self._first()
            elif self._sequence < _MAX_SEQUENCE:
                self._sequence += 1
            else:  # borrow from the next millisecond: waiting for it could take as long as a clock jump
                self._last_ms, self._sequence = self._last_ms + 1, self._first()
            high = (self._last_ms << _NODE_BITS) | self._node
            return (high << _SEQUENCE_BITS) | self._sequence
