"""Records that were read and are not acknowledged yet: a limited number, in the order of arrival."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from noetl_worker.bridge import metrics
from noetl_worker.bridge.record import FeedRecord
from noetl_worker.observability.series import Count

MOST_RECORDS: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024


class HeldRecord:
    """A record, from its last byte to its acknowledgement."""

    __slots__ = ("is_kept", "number", "on_kept", "record", "sent_s", "since_s")

    def __init__(self, number: int, record: FeedRecord, on_kept: Callable[[], None], since_s: float) -> None:
        self.number, self.record, self.on_kept = number, record, on_kept
        self.since_s, self.sent_s = since_s, 0.0
        self.is_kept = False
        """True if the record was passed on, and may be acknowledged."""


class HeldRecords:
    def __init__(self, most_records: int = MOST_RECORDS, most_bytes: int = MOST_BYTES) -> None:
        self._most_records, self._most_bytes = most_records, most_bytes
        self._held: dict[int, HeldRecord] = {}
        self._bytes = 0
        self._last = 0
        self.on_room: list[Callable[[], None]] = []
        """Called when there is room again after `is_full`."""
        self.on_empty: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_full(self) -> bool:
        return len(self._held) >= self._most_records or self._bytes >= self._most_bytes

    def take(self, record: FeedRecord, on_kept: Callable[[], None]) -> HeldRecord:
        """Hold a record. `on_kept` is called once the record may be acknowledged."""
        self._last += 1
        held = self._held[self._last] = HeldRecord(self._last, record, on_kept, time.monotonic())
        self._bytes += len(record.body) + len(record.payload)
        return held

    def keep(self, held: HeldRecord, way: Count) -> None:
        """Note that the record was passed on. Further calls have no effect."""
        if held.is_kept:
            return
        was_full = self.is_full
        held.is_kept = True
        del self._held[held.number]
        self._bytes -= len(held.record.body) + len(held.record.payload)
        way.inc()
        metrics.LATENCY.observe(time.monotonic() - held.since_s)
        held.on_kept()
        if was_full and not self.is_full:
            for notify in self.on_room:
                notify()
        if not self._held:
            for notify in self.on_empty:
                notify()

    def measure(self) -> None:
        """Set the gauges."""
        oldest = next(iter(self._held.values()), None)
        metrics.HELD.set(len(self._held))
        metrics.HELD_BYTES.set(self._bytes)
        metrics.OLDEST.set(0.0 if oldest is None else time.monotonic() - oldest.since_s)
