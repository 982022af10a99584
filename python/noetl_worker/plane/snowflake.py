"""64-bit event ids: 41 bits of milliseconds, 10 bits of node, 12 bits of sequence (wire.md 4.12).

The Rust plane rebuilds its state in id order: an id below the command's own event id, or below any id the plane
has answered, leaves the execution RUNNING for ever (wire.md 9.3, item 5). So ids only ever grow, whatever the
clock does: a clock behind is overruled by what was observed.

1,024 node numbers are few: of 40 workers two have the same one more often than not, and one may have the plane's.
Were every millisecond's sequence to begin at 0, each of their ids made in the same millisecond would be one id, and
the plane answers the second with a duplicate key. So a sequence begins anywhere in its lower half.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from noetl_worker.settings.settings import Settings

__all__ = ["Snowflake", "node_of", "snowflake_of"]

DEFAULT_EPOCH_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z, as every NoETL component
_NODE_BITS: Final = 10
_SEQUENCE_BITS: Final = 12
_MAX_SEQUENCE: Final = (1 << _SEQUENCE_BITS) - 1


def node_of(worker_id: str) -> int:
    """The node number of a worker without NOETL_SNOWFLAKE_NODE_ID: FNV-1a-64 of its id, 10 bits."""
    digest = 0xCBF29CE484222325
    for byte in worker_id.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return digest & ((1 << _NODE_BITS) - 1)


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


def snowflake_of(settings: Settings, worker_id: str) -> Snowflake:
    """The ids of this worker."""
    node = settings.snowflake_node_id
    return Snowflake(node_of(worker_id) if node is None else node, epoch_ms=settings.snowflake_epoch_ms)
