"""The outboxes of this machine, looked at and not touched: for an operator, never for the worker.

No lock is kept, no file is made or changed, nothing is adopted.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from noetl_worker.errors import DocumentError
from noetl_worker.pipeline.outbox.directory import require_own_directory, require_own_file
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import require_version
from noetl_worker.pipeline.outbox.rows import read_row

if sys.platform != "win32":  # where there is no outbox
    import fcntl

_ROWS = "SELECT command_id, place, length(row) + coalesce(length(data), 0), row, data FROM event_sets"


@dataclass(frozen=True, slots=True)
class KeptSet:
    """One outcome that no control plane has accepted yet."""

    file: Path
    is_owned: bool
    """Whether the process that has the file is alive; else the next worker of this directory takes it over."""
    command_id: str
    place: str
    """Where it has to go next."""
    size: int
    event_set: EventSet | None
    """None: it cannot be read."""


@dataclass(frozen=True, slots=True)
class OutboxView:
    kept: tuple[KeptSet, ...]
    unreadable: tuple[Path, ...]
    """Files that are quarantined, of another version, or cannot be read."""

    @property
    def bytes(self) -> int:
        return sum(row.size for row in self.kept)


def look_into(directory: Path) -> OutboxView:
    """What is in this directory; nothing where there is none.

    Raises:
        OSError: it is not this user's alone (`NotOwn`, whose text says what to do), or cannot be read.
    """
    try:
        require_own_directory(directory)
    except FileNotFoundError:
        return OutboxView((), ())
    kept: list[KeptSet] = []
    unreadable = list(directory.glob("outbox-*.unreadable"))
    for file in sorted(directory.glob("outbox-*.sqlite3")):
        try:
            kept += _rows(file)
        except (sqlite3.Error, OSError):
            unreadable.append(file)
    return OutboxView(tuple(kept), tuple(unreadable))


def _rows(file: Path) -> Iterator[KeptSet]:
    require_own_file(file)
    is_owned = _is_owned(file.with_suffix(".lock"))
    with closing(sqlite3.connect(f"file:{quote(os.fsencode(file))}?mode=ro", uri=True)) as database:
        if not require_version(database, file):
            return
        for command_id, place, size, row, data in database.execute(_ROWS):
            yield KeptSet(file, is_owned, str(command_id), str(place), int(size), _read(row, data))


def _read(row: bytes, data: bytes | None) -> EventSet | None:
    try:
        return read_row(row, data)
    except DocumentError:
        return None


def _is_owned(lock: Path) -> bool:
    """Whether a process holds it. The question takes the lock for an instant; who adopts meanwhile looks again."""
    if sys.platform == "win32" or not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
