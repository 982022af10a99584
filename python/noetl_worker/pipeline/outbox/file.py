"""A file of the outbox: a SQLite database (WAL) with terminal events. The file is locked until its process ends.

A process that gets the lock of a dead process takes over the dead process's file. The rows stay in this file. Each row
is deleted once the plane has accepted its events. A file that another user could have written is not opened. A file of
another version is left for a worker that can read it.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

from noetl_worker.pipeline.outbox.directory import make_file, require_own_file

try:
    import fcntl
except ImportError:  # Windows: no lock that ends with its process, so no outbox
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS: Final = fcntl is not None
_VERSION: Final = 1
"""The `PRAGMA user_version` of a file that this worker writes."""
_WITH_BATCHES: Final = 2
"""The `PRAGMA user_version` that older versions of the worker wrote. Their files have one table more: batches that the
plane has accepted. This worker does not read these batches, and deletes them with the file."""
# `data` is for the result store. It has its own column, so that reading a row does not parse the data.
_TABLE: Final = (
    "BEGIN; CREATE TABLE event_sets (key TEXT PRIMARY KEY, command_id TEXT NOT NULL, place TEXT NOT NULL,"
    f" row BLOB NOT NULL, data BLOB) WITHOUT ROWID; PRAGMA user_version={_VERSION}; COMMIT"
)


class OutboxRow(NamedTuple):
    """Key, command id, address and size of a row in the outbox. The row's event set and data are left on disk."""

    key: str
    command_id: str
    place: str
    """Address to which the row's next request goes: a plane, or a plane's result store. Rows for different addresses
    are sent independently."""
    size: int


class OutboxFile:
    """An open file of the outbox, for a single thread. Every method may raise sqlite3.Error or OSError."""

    def __init__(self, directory: Path, name: str, lock: IO[bytes]) -> None:
        self.path: Final = directory / f"{name}.sqlite3"
        self._lock = lock
        self._lock_path = directory / f"{name}.lock"
        self.has_unread = False
        """True if a row is damaged. Once no other row is left, the file is renamed to `.unreadable`, not deleted."""
        self.stays = False
        """True if the disk failed while a row was read. The file is then not deleted, and another worker takes the file
        over."""
        self._database = sqlite3.connect(self.path)
        try:
            version = require_version(self._database, self.path)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the newest rows only
            if not version:
                self._database.executescript(_TABLE)
        except (sqlite3.Error, OSError):
            self._database.close()
            raise

    @classmethod
    def create(cls, directory: Path) -> OutboxFile:
        """Create the outbox file and the lock file of this process. The lock file is locked before it is renamed to
        `.lock`, so an unlocked `.lock` file belongs to a dead process.

        Raises:
            OSError, sqlite3.Error: the file cannot be created. Nothing of it is left on disk.
        """
        name = f"outbox-{uuid.uuid4().hex}"
        born, lock_path = directory / f"{name}.born", directory / f"{name}.lock"
        make_file(born)
        lock = born.open("wb")
        try:
            if not take_lock(lock):
                raise OSError(
                    f"the new file {born} is locked already, so flock does not work here: use a file system with flock"
                )
            born.rename(lock_path)
            make_file(directory / f"{name}.sqlite3")  # SQLite gives its side files the same mode
            return cls(directory, name, lock)
        except BaseException:
            lock.close()
            for path in (born, *_database_files(directory / f"{name}.sqlite3"), lock_path):
                with suppress(OSError):
                    path.unlink()
            raise

    @classmethod
    def take_over(cls, lock_path: Path) -> OutboxFile | None:
        """Open the outbox file that belongs to this lock file, if the process that made it is dead. Return None if that
        process is alive, or if another worker has taken the file over.

        Raises:
            PermissionError: other users can access the file, its lock, or SQLite's files beside it.
            OSError: the file has another version. It is left unchanged.
        """
        try:
            lock = lock_path.open("r+b")  # NFS gives an exclusive lock only on a file open for writing
        except FileNotFoundError:
            return None
        try:
            if take_lock(lock) and lock_path.exists():
                for path in (lock_path, *_database_files(lock_path.with_suffix(".sqlite3"))):
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
        """Return a row's packed event set, and its data for the result store or None. The row must exist."""
        query = "SELECT row, data FROM event_sets WHERE key = ?"
        row, data = self._database.execute(query, (key,)).fetchone()
        return row, data

    def delete(self, key: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM event_sets WHERE key = ?", (key,))

    # ── closing ──

    def close(self, *, is_empty: bool) -> None:
        """Close the file and release its lock. A file with no row to be sent is deleted, or renamed to `.unreadable` if
        it has a damaged row. Any other file, and any file with a disk error (`stays`), is left for the next worker.

        Args:
            is_empty: True if no row is left to be sent.
        """
        try:
            if is_empty and self.has_unread:  # otherwise rows that only the WAL has would be deleted
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
        for path in (*_database_files(self.path), self._lock_path):
            with suppress(FileNotFoundError):
                path.unlink()


def require_version(database: sqlite3.Connection, path: Path) -> int:
    """Return the version of the file, or 0 for a file without a table. Such a file is new, or its process died early.

    Raises:
        OSError: the file has another version; the text says what to do.
    """
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (_VERSION, _WITH_BATCHES):
        raise OSError(
            f"{path} is an outbox of version {version}, and this worker reads versions {_VERSION} and {_WITH_BATCHES}: "
            "start a worker of the version that wrote the file, for this directory, until the file is gone"
        )
    return int(version)


def _database_files(path: Path) -> list[Path]:
    """Return the paths of the database file and of the `-wal` and `-shm` files that SQLite makes beside it."""
    return [path.with_name(f"{path.name}{ending}") for ending in ("", "-wal", "-shm")]


def take_lock(lock: IO[bytes], *, is_shared: bool = False) -> bool:
    """Lock an open file until the file is closed. Return False if another process holds the lock."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
