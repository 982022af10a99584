"""One file of the outbox: event sets in SQLite (WAL), beside a lock that the operating system frees with its process.

Whoever finds a lock free has the file: its rows stay where they are, and go one by one as they are told.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

try:
    import fcntl
except ImportError:  # Windows: no lock that dies with its owner, so no outbox
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAS_LOCKS", "OutboxFile", "Row"]

HAS_LOCKS: Final = fcntl is not None
# `data` is what goes to the result store: beside the row, so that nobody has to parse it to read the row.
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS event_sets"
    " (key TEXT PRIMARY KEY, command_id TEXT NOT NULL, place TEXT NOT NULL, row BLOB NOT NULL, data BLOB) WITHOUT ROWID"
)
_PUT: Final = "INSERT OR REPLACE INTO event_sets VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the outbox."""

    key: str
    command_id: str
    place: str
    """Where it has to go next: a plane, or a plane's result store. What waits for one place waits for no other."""
    size: int
    """Bytes of the contents."""
    contents: bytes = field(default=b"", repr=False)
    """Empty where only the rest was asked for."""
    data: bytes | None = field(default=None, repr=False)


class OutboxFile:
    """Not for several threads. Every method may raise sqlite3.Error or OSError: a full disk, a file in the way."""

    def __init__(self, directory: Path, name: str, lock: IO[bytes]) -> None:
        self.path: Final = directory / f"{name}.sqlite3"
        self._lock = lock
        self._lock_path = directory / f"{name}.lock"
        self._has_unread = False
        self._stays = False
        self._database = sqlite3.connect(self.path)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing of what it wrote; only a power cut may lose the last rows.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(_TABLE)
            self._database.commit()
        except sqlite3.Error:
            self._database.close()
            raise

    @classmethod
    def made(cls, directory: Path) -> OutboxFile:
        """A new file of this process. The lock stands before it is named: one that looks free is dead, never just born.

        Raises:
            OSError, sqlite3.Error: it cannot be made; nothing is left behind.
        """
        name = f"outbox-{uuid.uuid4().hex}"
        born, lock_path = directory / f"{name}.born", directory / f"{name}.lock"
        lock = born.open("wb")
        try:
            if not _is_locked(lock):
                raise OSError(f"{born} cannot be locked")
            born.rename(lock_path)
            return cls(directory, name, lock)
        except BaseException:
            lock.close()
            leftovers = [directory / f"{name}.sqlite3{ending}" for ending in ("", "-wal", "-shm")]
            for path in (born, *leftovers, lock_path):
                with suppress(OSError):
                    path.unlink()
            raise

    @classmethod
    def of_dead(cls, lock_path: Path) -> OutboxFile | None:
        """The file beside this lock, if its process is dead; None when it lives, or another worker was faster."""
        lock = lock_path.open("rb")
        try:
            if _is_locked(lock) and lock_path.exists():
                return cls(lock_path.parent, lock_path.stem, lock)
        except BaseException:
            lock.close()
            raise
        lock.close()
        return None

    def rows(self) -> list[Row]:
        """All of them, without their contents."""
        query = "SELECT key, command_id, place, length(row) + coalesce(length(data), 0) FROM event_sets"
        return [Row(*row) for row in self._database.execute(query)]

    def put(self, row: Row) -> None:
        with self._database:
            self._database.execute(_PUT, (row.key, row.command_id, row.place, row.contents, row.data))

    def get(self, key: str) -> tuple[bytes, bytes | None]:
        """The contents of a row and its data. KeyError: there is no such row."""
        found = self._database.execute("SELECT row, data FROM event_sets WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        return found[0], found[1]

    def delete(self, key: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM event_sets WHERE key = ?", (key,))

    def leave_unread(self) -> None:
        """A row of it is another version's. The file is kept for who can read it."""
        self._has_unread = True

    def leave_for_later(self) -> None:
        """A row of it could not be read just now. The file is kept, and is taken over again."""
        self._stays = True

    def close(self, *, is_empty: bool) -> None:
        """Give up the lock. An empty file goes; one with rows waits for the next worker.

        Args:
            is_empty: none of its rows is still to be told.
        """
        try:
            if is_empty and self._has_unread:  # what is in the WAL alone would go with it
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._database.close()
            if is_empty and not self._stays:
                self._delete()
        finally:
            self._database.close()
            self._lock.close()

    def _delete(self) -> None:
        if self._has_unread:
            self.path.rename(self.path.with_suffix(".unreadable"))
        for path in (str(self.path), f"{self.path}-wal", f"{self.path}-shm", str(self._lock_path)):
            with suppress(FileNotFoundError):
                Path(path).unlink()


def _is_locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
