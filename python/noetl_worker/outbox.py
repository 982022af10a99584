"""Terminal events that no plane has accepted yet, on disk: they outlive the process that made them.

One SQLite file (WAL) per process, beside a lock that the operating system frees when the process dies; whoever
finds a lock free takes the rows over. A disk that does not work is reported, and the sets are held in memory, as
they are without an outbox: the delivery is not acknowledged before the plane has accepted them.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Final

import structlog

from noetl_worker.errors import DocumentError
from noetl_worker.event_set import EventSet
from noetl_worker.observability import metrics

try:
    import fcntl
except ImportError:  # Windows: no lock that dies with its owner, so no outbox
    fcntl = None  # type: ignore[assignment]

__all__ = ["Outbox", "default_directory"]

_TABLE: Final = "CREATE TABLE IF NOT EXISTS event_sets (key TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID"
_PUT: Final = "INSERT OR REPLACE INTO event_sets VALUES (?, ?)"
_ROOM_AGAIN: Final = 0.9
"""A full outbox is full until it is emptier than this: else pulling flickers at the edge."""
log = structlog.get_logger("noetl_worker.outbox")
_Trouble = (sqlite3.Error, OSError)


def default_directory() -> Path:
    """Below the temporary directory: it survives the process; a container needs a volume to survive the container."""
    return Path(tempfile.gettempdir(), f"noetl-worker-outbox-{os.getuid() if hasattr(os, 'getuid') else 'user'}")


class Outbox:
    """Not for several threads. A call takes some ten microseconds, with a large result longer; no disk makes it raise.

    Args:
        when: `always` (before the first try), `on_failure` (at the first refused try) or `off`.
        directory: shared by the workers of a machine.
        max_rows, max_bytes: above one of them `is_full` says so, and nothing more is taken in.
    """

    def __init__(self, when: str, directory: Path, *, max_rows: int, max_bytes: int) -> None:
        self.writes_first: Final = when == "always"
        self._is_off = when == "off" or fcntl is None
        self._directory = directory
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._name = f"outbox-{uuid.uuid4().hex}"
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._is_full = False
        self._trouble: str | None = None
        self._database: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None

    # ── the sets of this process ──

    @property
    def is_full(self) -> bool:
        """No room for more: whoever claims now would only hold more in memory."""
        return self._is_full

    @property
    def is_empty(self) -> bool:
        return not self._sizes

    def keep(self, event_set: EventSet) -> bool:
        """Write the set, or what is left of it. False when it is in memory only."""
        if self._is_off or (self._is_full and event_set.key not in self._sizes):
            return False
        try:
            row = event_set.packed()
            with self._opened() as database:
                database.execute(_PUT, (event_set.key, row))
        except _Trouble as error:
            self._report(error)
            return False
        self._count(event_set.key, len(row))
        self._works_again()
        return True

    def has(self, event_set: EventSet) -> bool:
        """Whether a row of it is on disk."""
        return event_set.key in self._sizes

    def accepted(self, event_set: EventSet) -> None:
        """A request of the set was accepted: the row shrinks, or goes."""
        if not event_set.is_open:
            self.drop(event_set)
        elif self.writes_first or event_set.key in self._sizes:
            self.keep(event_set)

    def drop(self, event_set: EventSet) -> None:
        """The set is done with: accepted, refused for good, or no longer ours."""
        if event_set.key not in self._sizes:
            return
        self._count(event_set.key, None)
        try:
            with self._opened() as database:
                database.execute("DELETE FROM event_sets WHERE key = ?", (event_set.key,))
        except _Trouble as error:  # whoever adopts it asks for the claim first, and drops it then
            self._report(error)

    def close(self) -> None:
        """Give up the lock. Without rows the files go; with rows they wait for the next worker."""
        if self._database is not None:
            self._database.close()
            self._database = None
            if self.is_empty:
                self._delete(self._name)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # ── the sets of dead processes ──

    def adopt(self) -> list[EventSet]:
        """Take over the files whose owner is dead: their sets, now in our own file."""
        if self._is_off or not self._directory.is_dir():
            return []
        return [event_set for lock in sorted(self._directory.glob("outbox-*.lock")) for event_set in self._taken(lock)]

    def _taken(self, lock: Path) -> Iterator[EventSet]:
        if lock.stem == self._name:
            return
        try:
            with lock.open("rb") as held:
                if not _lock(held) or not lock.exists():  # its owner lives, or another worker was faster
                    return
                rows, unread = self._rows_of(lock.stem)
                if self._keep_rows(rows):
                    if unread:  # another version's: what we cannot tell is left for who can
                        path = self._directory / f"{lock.stem}.sqlite3"
                        path.rename(path.with_suffix(".unreadable"))
                    self._delete(lock.stem)
                    metrics.OUTBOX_ADOPTED.inc(len(rows))
                    yield from (event_set for event_set, _ in rows)
        except _Trouble as error:
            log.error("outbox_not_adopted", file=str(lock), error=repr(error))

    def _rows_of(self, name: str) -> tuple[list[tuple[EventSet, bytes]], int]:
        """The sets of a file, and how many of its rows cannot be read."""
        path = self._directory / f"{name}.sqlite3"
        if not path.exists():
            return [], 0
        with closing(sqlite3.connect(path)) as database:
            database.execute(_TABLE)
            packed = [row for (row,) in database.execute("SELECT row FROM event_sets")]
        rows = []
        for row in packed:
            try:
                rows.append((EventSet.unpacked(row), row))
            except DocumentError as error:
                log.error("outbox_row_unreadable", file=str(path), error=str(error), row=row[:200])
        return rows, len(packed) - len(rows)

    def _keep_rows(self, rows: list[tuple[EventSet, bytes]]) -> bool:
        """All of them or none: the other file goes only when they are here."""
        if rows:
            with self._opened() as database:
                database.executemany(_PUT, [(event_set.key, row) for event_set, row in rows])
        for event_set, row in rows:
            self._count(event_set.key, len(row))
        return True

    # ── files ──

    def _opened(self) -> sqlite3.Connection:
        """The database of this process; its `with` block is one transaction."""
        if self._database is None:
            self._make_directory()
            self._take_lock()
            database = sqlite3.connect(self._directory / f"{self._name}.sqlite3")
            database.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing of what it wrote; only a power cut may lose the last rows.
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(_TABLE)
            database.commit()
            self._database = database
        return self._database

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._directory == default_directory() and self._directory.stat().st_uid != os.getuid():
            raise PermissionError(f"{self._directory} belongs to another user: set NOETL_WORKER_OUTBOX_DIR")

    def _take_lock(self) -> None:
        """The lock stands before the file is named: one that looks free is dead, never just born."""
        if self._lock is None:
            born = self._directory / f"{self._name}.born"
            held = born.open("wb")
            if not _lock(held):
                raise OSError(f"{born} cannot be locked")
            born.rename(self._directory / f"{self._name}.lock")
            self._lock = held

    def _delete(self, name: str) -> None:
        for ending in (".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".lock"):
            with suppress(FileNotFoundError):
                (self._directory / f"{name}{ending}").unlink()

    # ── counts and troubles ──

    def _count(self, key: str, size: int | None) -> None:
        self._bytes -= self._sizes.pop(key, 0)
        if size is not None:
            self._sizes[key] = size
            self._bytes += size
        share = max(len(self._sizes) / self._max_rows, self._bytes / self._max_bytes)
        was_full, self._is_full = self._is_full, share >= (_ROOM_AGAIN if self._is_full else 1.0)
        if self._is_full and not was_full:
            log.error(
                "outbox_full",
                rows=len(self._sizes),
                bytes=self._bytes,
                advice="nothing is pulled until the control plane accepts events again",
            )
        metrics.OUTBOX_ROWS.set(len(self._sizes))
        metrics.OUTBOX_BYTES.set(self._bytes)

    def _report(self, error: Exception) -> None:
        metrics.OUTBOX_FAILED.inc()
        text = f"{type(error).__name__}: {error}"
        if text != self._trouble:
            self._trouble = text
            log.error(
                "outbox_not_writable",
                directory=str(self._directory),
                error=text,
                advice="the results are held in memory; make NOETL_WORKER_OUTBOX_DIR a writable directory with room",
            )

    def _works_again(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            log.info("outbox_writable", directory=str(self._directory))


def _lock(held: IO[bytes]) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
