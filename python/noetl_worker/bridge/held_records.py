"""Command records that the bridge keeps in memory from their arrival until they are acknowledged.

Their number and total size are limited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from noetl_worker.bridge import metrics
from noetl_worker.bridge.record import FeedRecord
from noetl_worker.observability.series import Count

MOST_RECORDS: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024


class HeldRecord:
    """A command record that the bridge has received and not yet acknowledged."""

    __slots__ = ("is_passed_on", "number", "on_passed_on", "record", "sent_s", "since_s")

    def __init__(self, number: int, record: FeedRecord, on_passed_on: Callable[[], None], since_s: float) -> None:
        self.number, self.record, self.on_passed_on = number, record, on_passed_on
        self.since_s, self.sent_s = since_s, 0.0
        self.is_passed_on = False
        """True if JetStream or upstream's writer has the record. Only then may the record be acknowledged."""


class HeldRecords:
    def __init__(self, most_records: int = MOST_RECORDS, most_bytes: int = MOST_BYTES) -> None:
        self._most_records, self._most_bytes = most_records, most_bytes
        self._held: dict[int, HeldRecord] = {}
        self._bytes = 0
        self._last = 0
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def _is_full(self) -> bool:
        return len(self._held) >= self._most_records or self._bytes >= self._most_bytes

    async def wait_for_room(self) -> None:
        """Wait until another record fits into the limits of number and bytes."""
        while self._is_full():
            self._fewer.clear()
            await self._fewer.wait()

    async def wait_until_empty(self) -> None:
        """Wait until every held command record has been passed on to JetStream or upstream's writer."""
        while self._held:
            self._fewer.clear()
            await self._fewer.wait()

    def take(self, record: FeedRecord, on_passed_on: Callable[[], None]) -> HeldRecord:
        """Hold a command record in memory until it is passed on to JetStream or upstream's writer. Then call
        `on_passed_on`, which may acknowledge the record.
        """
        self._last += 1
        held = self._held[self._last] = HeldRecord(self._last, record, on_passed_on, time.monotonic())
        self._bytes += len(record.body) + len(record.payload)
        return held

    def note_passed_on(self, held: HeldRecord, way: Count) -> None:
        """Remove a record that JetStream or upstream's writer now has, and call its `on_passed_on`.

        Further calls for the same record have no effect.

        Args:
            way: metric that counts the records passed on to this destination.
        """
        if held.is_passed_on:
            return
        held.is_passed_on = True
        del self._held[held.number]
        self._bytes -= len(held.record.body) + len(held.record.payload)
        way.inc()
        metrics.LATENCY.observe(time.monotonic() - held.since_s)
        held.on_passed_on()
        self._fewer.set()

    def measure(self) -> None:
        """Set the metrics for the number, the bytes and the greatest age of the held records."""
        oldest = next(iter(self._held.values()), None)
        metrics.HELD.set(len(self._held))
        metrics.HELD_BYTES.set(self._bytes)
        metrics.OLDEST.set(0.0 if oldest is None else time.monotonic() - oldest.since_s)
