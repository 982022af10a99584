"""The outbox of a simulated process: the product's own, on a real directory, until the process is killed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import OutboxRow
from noetl_worker.pipeline.outbox.outbox import Outbox

_MEMORY = Path("/dev/shm")


class SimOutbox(Outbox):
    """After `die` nothing is written, deleted or adopted any more, and the lock is free: as after a SIGKILL."""

    _is_dead = False

    def die(self) -> None:
        self._is_dead = True
        for file in [*self._rows_left, *([self._own] if self._own is not None else [])]:
            file.close(is_empty=False)

    def write(self, event_set: EventSet) -> bool:
        return not self._is_dead and super().write(event_set)

    def drop(self, event_set: EventSet) -> None:
        if not self._is_dead:
            super().drop(event_set)

    def adopt(self) -> list[OutboxRow]:
        return [] if self._is_dead else super().adopt()

    def load(self, key: str) -> EventSet | None:
        return None if self._is_dead else super().load(key)

    def close(self) -> None:
        if not self._is_dead:
            super().close()


def new_disk() -> tempfile.TemporaryDirectory[Any]:
    """A directory for the outboxes of one run; in memory where there is such a place."""
    return tempfile.TemporaryDirectory(prefix="noetl-simulate-", dir=_MEMORY if _MEMORY.is_dir() else None)
