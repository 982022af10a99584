"""How many dead letters there are now, by reason, and how old the oldest is: each is read once, and not at a scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import structlog

from noetl_worker import json_text
from noetl_worker.errors import DocumentError, JetStreamError
from noetl_worker.jetstream.api import moment
from noetl_worker.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.observability import metrics

LOOKED_EVERY_S: Final = 60.0
AFTER_A_FAILURE_S: Final = 900.0
"""A login that may not look would else have a refusal a minute in its log."""
READ_AT_ONCE: Final = 256
"""Dead letters that one look reads at most; those before them are read by the next ones."""
log = structlog.get_logger("noetl_worker.jetstream")


class DeadLetterCounts:
    """`look` is called often, and asks once a minute."""

    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store
        self._due_at = 0.0
        self._known: dict[int, tuple[str, str]] = {}
        """Reason and time of each dead letter, by its number."""
        self._read_to = 0

    async def look(self) -> None:
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + LOOKED_EVERY_S
        try:
            stream = await self._store.stream()
            if stream is None:
                self._known = {}
            else:
                await self._read(stream, await self._store.state(stream))
        except JetStreamError as error:
            self._due_at = time.monotonic() + AFTER_A_FAILURE_S
            advice = "the metrics of kept dead letters are out of date; may this login read them: `noetl-worker doctor`"
            log.warning("dead_letters_not_counted", error=str(error), advice=advice)
            return
        self._show()

    async def _read(self, stream: str, state: Mapping[str, Any]) -> None:
        gone, last = set(state.get("deleted") or ()), int(state["last_seq"])
        first = int(state["first_seq"])
        if last < self._read_to:  # the stream was made again
            self._known, self._read_to = {}, 0
        self._known = {number: one for number, one in self._known.items() if number >= first and number not in gone}
        numbers = (number for number in range(max(first, self._read_to + 1), last + 1) if number not in gone)
        for count, number in enumerate(numbers):
            if count == READ_AT_ONCE:
                self._due_at = 0.0  # the rest at the next call
                return
            kept = await self._store.get(stream, number)
            if kept is not None:
                self._known[number] = _reason(kept.data), kept.stored_at
            self._read_to = number
        self._read_to = last

    def _show(self) -> None:
        counts = Counter(reason for reason, _ in self._known.values())
        for (reason,), series in metrics.DEAD_LETTERS_NOW.series.items():
            series.set(counts[reason])
        oldest = min((stored_at for _, stored_at in self._known.values()), default=None)
        metrics.DEAD_LETTERS_OLDEST.set(0.0 if oldest is None else max(0.0, time.time() - moment(oldest)))


def _reason(data: bytes) -> str:
    try:
        kept = json_text.loads(data)
    except DocumentError:
        return metrics.OTHER_REASON
    kind = kept.get("kind") if isinstance(kept, dict) else None
    return str(kind) if (str(kind),) in metrics.DEAD_LETTERS_NOW.series else metrics.OTHER_REASON
