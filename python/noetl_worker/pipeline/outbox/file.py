"""One file of the outbox: event sets in SQLite (WAL), beside a lock that the operating system frees with its process.

Whoever finds a lock free has the file: its rows stay where they are, and go one by one as they are sent. A file that
another user could have written is not opened, nor one of another version: that waits for a worker that can read it.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

from noetl_worker.pipeline.outbox.directory import made_own, require_own_file

try:
    import fcntl
except ImportError:  # Windows: no lock that dies with its owner, so no outbox
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS: Final = fcntl is not None
_VERSION: Final = 1
"""The `PRAGMA user_version` of a file that this worker writes."""
_WITH_BATCHES: Final = 2
"""The version of a file in which an earlier worker kept accepted batches too. They go with the file."""
# `data` is what goes to the result store: beside the row, so that nobody has to parse it to read the row.
_TABLE: Final = (
    "BEGIN; CREATE TABLE event_sets (key TEXT PRIMARY KEY, command_id TEXT NOT NULL, place TEXT NOT NULL,"
    f" row BLOB NOT NULL, data BLOB) WITHOUT ROWID; PRAGMA user_version={_VERSION}; COMMIT"
)


class OutboxRow(NamedTuple):
    """One row of the outbox, without its contents."""

    key: str
    command_id: str
    place: str
    """Where it has to go next: a plane, or a plane's result store. What waits for one place waits for no other."""
    size: int
    """Bytes of the contents."""


class OutboxFile:
    """Not for several threads. Every method may raise sqlite3.Error or OSError: a full disk, a file in the way."""

    def __init__(self, directory: Path, name: str, lock: IO[bytes]) -> None:
        self.path: Final = directory / f"{name}.sqlite3"
        self._lock = lock
        self._lock_path = directory / f"{name}.lock"
        self.has_unread = False
        """A row of it cannot be read: the file is quarantined, and not deleted with its last row."""
        self.stays = False
        """A row of it could not be read just now: the file is kept, and is taken over again."""
        self._database = sqlite3.connect(self.path)
        try:
            version = require_version(self._database, self.path)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last rows, and no others
            if not version:
                self._database.executescript(_TABLE)
        except (sqlite3.Error, OSError):
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
        made_own(born)
        lock = born.open("wb")
        try:
            if not _is_locked(lock):
                raise OSError(f"{born} cannot be locked")
            born.rename(lock_path)
            made_own(directory / f"{name}.sqlite3")  # SQLite gives what it puts beside it the same mode
            return cls(directory, name, lock)
        except BaseException:
            lock.close()
            for path in (born, *_of_database(directory / f"{name}.sqlite3"), lock_path):
                with suppress(OSError):
                    path.unlink()
            raise

    @classmethod
    def of_dead(cls, lock_path: Path) -> OutboxFile | None:
        """The file beside this lock, if its process is dead; None when it lives, or another worker was faster.

        Raises:
            NotOwn: others can get at one of its files.
            OSError: it is another version's; nothing of it is changed.
        """
        try:
            lock = lock_path.open("r+b")  # NFS locks for itself alone only what is open for writing
        except FileNotFoundError:
            return None
        try:
            if _is_locked(lock) and lock_path.exists():
                for path in (lock_path, *_of_database(lock_path.with_suffix(".sqlite3"))):
                    with suppress(FileNotFoundError):
                        require_own_file(path)
                return cls(lock_path.parent, lock_path.stem, lock)
        except BaseException:
            lock.close()
            raise
        lock.close()
        return None

    def rows(self) -> list[OutboxRow]:
        query = "SELECT key, command_id, place, length(row) + coalesce(length(data), 0) FROM event_sets"
        return [OutboxRow(*row) for row in self._database.execute(query)]

    def put(self, key: str, command_id: str, place: str, contents: bytes, data: bytes | None) -> None:
        with self._database:
            row = (key, command_id, place, contents, data)
            self._database.execute("INSERT OR REPLACE INTO event_sets VALUES (?, ?, ?, ?, ?)", row)

    def get(self, key: str) -> tuple[bytes, bytes | None]:
        """The contents of a row and its data.

        Raises:
            KeyError: there is no such row.
        """
        query = "SELECT row, data FROM event_sets WHERE key = ?"
        found = self._database.execute(query, (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        row, data = found
        return row, data

    def delete(self, key: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM event_sets WHERE key = ?", (key,))

    # ── its end ──

    def close(self, *, is_empty: bool) -> None:
        """Give up the lock. An empty file goes; one with rows waits for the next worker.

        Args:
            is_empty: none of its rows is still to be sent.
        """
        try:
            if is_empty and self.has_unread:  # what is in the WAL alone would go with it
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._database.close()
            if is_empty and not self.stays:
                self._delete()
        finally:
            self._database.close()
            self._lock.close()

    def _delete(self) -> None:
        if self.has_unread:
            self.path.rename(self.path.with_suffix(".unreadable"))
        for path in (*_of_database(self.path), self._lock_path):
            with suppress(FileNotFoundError):
                path.unlink()


def require_version(database: sqlite3.Connection, path: Path) -> int:
    """The version of the file; 0: it is empty, its process died before it wrote a row.

    Raises:
        OSError: it is a file of another version; the text says what to do.
    """
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (_VERSION, _WITH_BATCHES):
        raise OSError(
            f"{path} is an outbox of version {version}, and this worker reads versions {_VERSION} and {_WITH_BATCHES}: "
            "start a worker of the version that wrote it with this directory, until the file is gone"
        )
    return int(version)


def _of_database(path: Path) -> list[Path]:
    """Its file, and what SQLite puts beside it."""
    return [path.with_name(f"{path.name}{ending}") for ending in ("", "-wal", "-shm")]


def _is_locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
