"""The finished runs of `noetl-worker dev` on disk, as rows of one SQLite table.

If there are too many runs or bytes, the oldest runs are removed. The rows contain the data of steps, so only this user
can read the directory and the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from noetl_worker.errors import PlaybookError
from noetl_worker.pipeline.outbox.directory import make_file, require_own_directory, require_own_file, state_directory

LAST: Final = "last"
"""Word that users write instead of a run's id to name the newest run."""
_VERSION: Final = 1
_TABLE: Final = f"""
PRAGMA auto_vacuum=FULL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS rows (
  run INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, contents BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS rows_run ON rows (run);
CREATE INDEX IF NOT EXISTS rows_id ON rows (id);
PRAGMA user_version={_VERSION};
COMMIT
"""
_FILE: Final = "runs.sqlite3"


class StoredRow(NamedTuple):
    """A stored row of a finished run, for example an event or a command."""

    kind: str
    """Type of the row: `executions`, `catalog`, `commands`, `events` or `results`."""
    id: str
    contents: bytes
    """The row's columns as JSON."""


class StoredRuns:
    """The file with finished runs of `noetl-worker dev`.

    Every method raises OSError or sqlite3.Error if the file cannot be used. Every method raises PlaybookError if
    another version of this program wrote the file.
    """

    def __init__(self, directory: Path | None = None, *, most_runs: int = 100, most_bytes: int = 200 << 20) -> None:
        self.file: Final = (directory or state_directory("dev")) / _FILE
        self._most_runs, self._most_bytes = most_runs, most_bytes

    def store(self, run: int, rows: Iterable[StoredRow]) -> bool:
        """Store a run under its execution id. Return False if this run alone exceeds the limit of the file's size."""
        self._make()
        with self._opened() as database, database:
            database.execute("DELETE FROM rows WHERE run = ?", (run,))
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", ((run, *row) for row in rows))
            while self._is_too_much(database):
                database.execute("DELETE FROM rows WHERE run = (SELECT run FROM rows ORDER BY rowid LIMIT 1)")
            return database.execute("SELECT 1 FROM rows WHERE run = ?", (run,)).fetchone() is not None

    def find(self, name: str, kind: str | None = None) -> list[StoredRow]:
        """Return the stored rows of a run: its execution, commands and events. Return [] if the run is not stored.

        Args:
            kind: type of the rows to return, such as `events`; None: all rows.
            name: id of the run's execution, of one of its commands or of one of its events.
        """
        if not self.file.exists():
            return []
        with self._opened() as database:
            found = database.execute("SELECT run FROM rows WHERE id = ? LIMIT 1", (name,)).fetchone()
            wanted = "SELECT kind, id, contents FROM rows WHERE run = ? AND kind = coalesce(?, kind) ORDER BY rowid"
            return [StoredRow(*row) for row in database.execute(wanted, (*found, kind))] if found is not None else []

    def newest(self, most: int) -> list[int]:
        """Return the execution ids of the newest runs, the newest first.

        Args:
            most: largest number of ids to return.
        """
        if not self.file.exists():
            return []
        with self._opened() as database:
            query = "SELECT run FROM rows GROUP BY run ORDER BY max(rowid) DESC LIMIT ?"
            return [run for (run,) in database.execute(query, (most,))]

    def _make(self) -> None:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own_directory(self.file.parent)
        with suppress(FileExistsError):
            make_file(self.file)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        require_own_directory(self.file.parent)
        require_own_file(self.file)
        with closing(sqlite3.connect(self.file)) as database:
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.executescript(_TABLE)
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                said = f"another version of noetl-worker wrote {self.file} (format {version}, not {_VERSION})"
                raise PlaybookError(f"{said}: move the file away")
            yield database

    def _is_too_much(self, database: sqlite3.Connection) -> bool:
        def number(query: str) -> int:
            return int(database.execute(query).fetchone()[0])

        pages = number("PRAGMA page_count") - number("PRAGMA freelist_count")
        runs = number("SELECT count(DISTINCT run) FROM rows")
        return runs > self._most_runs or (runs > 0 and pages * number("PRAGMA page_size") > self._most_bytes)
