"""Number of dead letters that the stream keeps, for the metrics."""

from __future__ import annotations

import time
from typing import Final

import structlog

from noetl_worker.errors import JetStreamError
from noetl_worker.observability import metrics
from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore

LOOKED_EVERY_S: Final = 60.0
AFTER_A_FAILURE_S: Final = 900.0
"""Seconds to wait after a failure. A login without permission would otherwise log a warning each minute."""
log = structlog.get_logger("noetl_worker.remote.jetstream")


class DeadLetterCounts:
    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store
        self._due_at = 0.0

    async def look(self) -> None:
        """Set the gauge of stored dead letters, at most once a minute."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + LOOKED_EVERY_S
        try:
            stream = await self._store.stream()
            metrics.DEAD_LETTERS_KEPT.set(0 if stream is None else await self._store.count(stream))
        except JetStreamError as error:
            self._due_at = time.monotonic() + AFTER_A_FAILURE_S
            advice = "run `noetl-worker doctor`, which checks the permission: the metric of dead letters is out of date"
            log.warning("dead_letters_not_counted", error=str(error), advice=advice)
