"""A read-only view of this machine's outboxes, for operators and not for the worker.

Reading changes no row, and takes over no file of a dead process. SQLite may create its side files (`-wal`, `-shm`)
beside an outbox file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from noetl_worker.errors import DocumentError
from noetl_worker.pipeline.outbox.directory import require_own_directory, require_own_file
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import HAS_LOCKS, require_version, take_lock

_ROWS = "SELECT command_id, place, length(row) + coalesce(length(data), 0), row, data FROM event_sets"


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An outcome on disk that no control plane has accepted yet."""

    file: Path
    is_owned: bool
    """True if a live process has locked the file. Otherwise the next worker of this directory takes the file over."""
    command_id: str
    place: str
    size: int
    event_set: EventSet | None
    """The outcome's events, or None if the row cannot be read."""


@dataclass(frozen=True, slots=True)
class OutboxView:
    outcomes: tuple[StoredOutcome, ...]
    unreadable: tuple[Path, ...]
    """Files with the name `.unreadable`, files of another version, and files that could not be read now."""

    @property
    def bytes(self) -> int:
        return sum(row.size for row in self.outcomes)


def read_outboxes(directory: Path) -> OutboxView:
    """Return the outcomes in this directory. A missing directory has no outcomes.

    Raises:
        OSError: the directory is another user's, others can write to it, or it cannot be read; the text says what to
            do.
    """
    try:
        require_own_directory(directory)
    except FileNotFoundError:
        return OutboxView((), ())
    outcomes: list[StoredOutcome] = []
    unreadable = list(directory.glob("outbox-*.unreadable"))
    for file in sorted(directory.glob("outbox-*.sqlite3")):
        try:
            outcomes += _rows(file)
        except (sqlite3.Error, OSError):
            unreadable.append(file)
    return OutboxView(tuple(outcomes), tuple(unreadable))


def _rows(file: Path) -> Iterator[StoredOutcome]:
    require_own_file(file)
    is_owned = _is_owned(file.with_suffix(".lock"))
    with closing(sqlite3.connect(f"file:{quote(os.fsencode(file))}?mode=ro", uri=True)) as database:
        if not require_version(database, file):
            return
        for command_id, place, size, row, data in database.execute(_ROWS):
            yield StoredOutcome(file, is_owned, str(command_id), str(place), int(size), _read(row, data))


def _read(row: bytes, data: bytes | None) -> EventSet | None:
    try:
        return EventSet.unpacked(row, data)
    except DocumentError:
        return None


def _is_owned(lock: Path) -> bool:
    """Return whether a process holds the lock. This function takes the lock for an instant. A worker that fails to get
    the lock at this instant tries again later."""
    if not HAS_LOCKS or not lock.exists():
        return False
    with lock.open("rb") as file:
        return not take_lock(file, is_shared=True)
