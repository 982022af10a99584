"""Terminal events that no plane has accepted yet, on disk, where they outlive the process that made them.

Each process has one file (`file.py`), and takes over the files of dead processes. If the disk fails, the terminal
events are in memory only. If the process then dies, JetStream redelivers the commands' messages, because a message is
acknowledged only after the plane has accepted the events.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from noetl_worker.errors import DocumentError
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.pipeline.outbox.directory import require_own_directory
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.file import HAS_LOCKS, OutboxFile, OutboxRow

MAX_BYTES: Final = 256 << 20
MAX_ROWS: Final = 10_000
"""Largest number of rows in one outbox. At MAX_ROWS or MAX_BYTES the outbox is full. A plane that is up again accepts a
full outbox in minutes."""
_ROOM_AGAIN: Final = 0.9
"""Fraction of the limits below which a full outbox has room again. With 1.0, pulling would stop and start often."""
_MOST_FILES: Final = 32
"""Largest number of files of dead processes that this process has open at a time. Each file takes four descriptors, and
a worker that keeps crashing leaves many files."""
_FULL_ADVICE: Final = "see `events_not_accepted` for the reason: the worker pulls again once the plane accepts events"
_UNWRITABLE_ADVICE: Final = (
    "make NOETL_WORKER_OUTBOX_DIR a writable directory with free space; until then outcomes are in memory only"
)
_UNREADABLE_ADVICE: Final = (
    "ask `noetl-worker why ID` whether the command has an outcome: the row is damaged, and stays on disk in a file "
    "`.unreadable`"
)
log = structlog.get_logger("noetl_worker.pipeline.outbox")
_Trouble = (sqlite3.Error, OSError)


class _RowOnDisk(NamedTuple):
    """A row of the outbox on disk (a command's outcome that the plane has not accepted yet): its file, size and age."""

    file: OutboxFile
    size: int
    since: float
    """Monotonic time when this process first wrote the row, or when it took the row over from a dead process."""


class Outbox:
    """The outbox of one worker, for a single thread. A call takes about ten microseconds, longer for a large result.

    No method raises when the disk fails.

    Args:
        when: when a command's terminal events are written: `always` (before they are first sent), `on_failure`
            (after a request that the plane has not accepted, or when they have to wait) or `off`.
        directory: the directory that the workers of a machine share.
        max_rows, max_bytes: limits. At either limit `is_full` is True, and no further row is written.
    """

    def __init__(self, when: str, directory: Path, *, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS) -> None:
        self.writes_first: Final = when == "always"
        self._is_off = when == "off" or not HAS_LOCKS
        self._directory = directory
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._own: OutboxFile | None = None
        self._rows: dict[str, _RowOnDisk] = {}
        """Rows of the files by the key of the event set in the row, the oldest first."""
        self._rows_left: dict[OutboxFile, int] = {}
        """Outbox files taken over from dead processes, with the number of their rows that are still to be sent."""
        self._failed_locks: set[Path] = set()
        """Lock files of the outbox files that this process failed to take over. They are remembered so that each
        failure is logged once."""
        self._bytes = 0
        self.is_full = False
        """True if a limit is reached. The outcome of a further command would be in memory only."""
        self._full, self._unwritable = Outage(), Outage()
        self.unwritten: set[str] = set()
        """Keys of the sets that are in memory only, because the disk failed."""

    # ── the sets of this process ──

    def oldest_s(self) -> float:
        """Return the seconds since this process wrote its oldest row, or took the row over from a dead process. Return
        0 if there is no row."""
        return time.monotonic() - next(iter(self._rows.values())).since if self._rows else 0.0

    @property
    def is_empty(self) -> bool:
        return not self._rows

    @property
    def trouble(self) -> str | None:
        """Reason why the worker must not pull: further outcomes would be in memory only. None if it may pull."""
        if self.unwritten:
            return f"the outbox cannot be written, and {len(self.unwritten)} outcomes are in memory only"
        return "the outbox is full" if self.is_full else None

    def has(self, event_set: EventSet) -> bool:
        return event_set.key in self._rows

    def write(self, event_set: EventSet) -> bool:
        """Write a command's event set to disk, with its requests that the plane has not accepted yet. Return False if
        the set is in memory only."""
        key = event_set.key
        if self._is_off or (self.is_full and key not in self._rows):
            return False
        try:
            contents, data = event_set.packed()
            file = self._rows[key].file if key in self._rows else self._opened()
            file.put(key, str(event_set.command_id), event_set.next_address, contents, data)
        except _Trouble as error:
            self._report(error)
            self._count_unwritten(key, is_written=False)
            return False
        if self.unwritten:
            self._count_unwritten(key, is_written=True)
        self._enter(key, file, len(contents) + len(data or b""))
        self._works_again()
        return True

    def accepted(self, event_set: EventSet) -> None:
        """Update the outbox after the plane accepted one request of an event set: write the set's other requests, or
        delete the set's row if no request is left."""
        is_written = event_set.key in self._rows
        if event_set.is_open and (is_written or self.writes_first):
            self.write(event_set)
        elif is_written or self.unwritten:
            self.drop(event_set)

    def drop(self, event_set: EventSet) -> None:
        """Delete the row of an event set. Call this when the plane has accepted the set or refused it for good, or when
        this worker no longer has the command."""
        key = event_set.key
        if self.unwritten:
            self._count_unwritten(key, is_written=True)
        if key not in self._rows:
            return
        try:
            self._rows[key].file.delete(key)
        except _Trouble as error:  # the row stays; the next worker learns from the plane that it is over
            self._report(error)
        self._forget_row(key)

    def close(self) -> None:
        """Close all files and release their locks. Empty files are deleted; other files are left for the next
        worker."""
        with_rows = {row.file for row in self._rows.values()}
        for file in [*self._rows_left, *([self._own] if self._own is not None else [])]:
            self._close(file, is_empty=file not in with_rows)
        self._own = None

    # ── the sets of dead processes ──

    def adopt(self) -> list[OutboxRow]:
        """Take over the files of dead processes. Return their rows, which this process now has to send. `load` reads
        the event set of a row."""
        if self._is_off:
            return []
        rows: list[OutboxRow] = []
        try:
            require_own_directory(self._directory)
        except FileNotFoundError:  # created when first needed
            return []
        except _Trouble as error:
            self._log_failure(error)
            return []
        for lock in sorted(self._directory.glob("outbox-*.lock")):
            if len(self._rows_left) >= _MOST_FILES:
                break
            rows += self._take_over(lock)
        return rows

    def load(self, key: str) -> EventSet | None:
        """Return the event set of a row from a dead process, or None if the row is gone or cannot be read. A row that
        cannot be read is logged, and stays on disk."""
        if key not in self._rows:  # this process has reported the same command meanwhile
            return None
        file = self._rows[key].file
        try:
            return EventSet.unpacked(*file.get(key))
        except DocumentError as error:
            log.error(
                "outbox_row_unreadable", file=str(file.path), key=key, error=str(error), advice=_UNREADABLE_ADVICE
            )
            file.has_unread = True
        except _Trouble as error:
            advice = "check the disk of NOETL_WORKER_OUTBOX_DIR; a later worker reads the row again"
            log.error("outbox_row_not_read", file=str(file.path), key=key, error=repr(error), advice=advice)
            file.stays = True
        self._forget_row(key)
        return None

    def _take_over(self, lock: Path) -> list[OutboxRow]:
        """Take over the file of this lock, and return the file's rows. Return no rows if the file's process is alive or
        the file cannot be read."""
        file: OutboxFile | None = None
        try:
            file = OutboxFile.take_over(lock)
            if file is None:
                return []
            rows = [row for row in file.rows() if not self._is_reported_already(row, file)]
        except _Trouble as error:
            if lock not in self._failed_locks:
                self._failed_locks.add(lock)
                log.error(
                    "outbox_not_adopted",
                    file=str(lock),
                    error=repr(error),
                    advice="look at `error`, and correct the file's owner or mode, or start a worker of its version: "
                    "this worker cannot send the outcomes in this file",
                )
            if file is not None:
                self._close(file, is_empty=False)
            return []
        self._rows_left[file] = len(rows)
        for row in rows:
            self._enter(row.key, file, row.size)
        if not rows:
            self._close(file, is_empty=True)
        metrics.OUTBOX_ADOPTED.inc(len(rows))
        return rows

    def _is_reported_already(self, row: OutboxRow, file: OutboxFile) -> bool:
        """Return whether this process already has an outcome for the row's claim. If so, delete the row: a command must
        not be reported twice."""
        if row.key not in self._rows:
            return False
        log.warning(
            "outbox_row_duplicated",
            file=str(file.path),
            key=row.key,
            advice="do nothing: this worker already sends an outcome for the same claim",
        )
        file.delete(row.key)
        return True

    # ── files ──

    def _opened(self) -> OutboxFile:
        """Return the outbox file of this process. Create the file if it does not exist yet."""
        if self._own is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own_directory(self._directory)
            self._own = OutboxFile.create(self._directory)
        return self._own

    def _forget_row(self, key: str) -> None:
        """Forget a row that is not to be sent any more. If the row was the last one of a dead process's file, close the
        file."""
        row = self._rows.pop(key)
        self._count(-row.size)
        if row.file in self._rows_left:
            self._rows_left[row.file] -= 1
            if not self._rows_left[row.file]:
                self._close(row.file, is_empty=True)

    def _close(self, file: OutboxFile, *, is_empty: bool) -> None:
        self._rows_left.pop(file, None)
        try:
            file.close(is_empty=is_empty)
        except _Trouble as error:
            self._report(error)

    # ── counts and troubles ──

    def _enter(self, key: str, file: OutboxFile, size: int) -> None:
        before = self._rows.get(key)
        self._rows[key] = _RowOnDisk(file, size, before.since if before is not None else time.monotonic())
        self._count(size - (before.size if before is not None else 0))

    def _count(self, more_bytes: int) -> None:
        self._bytes += more_bytes
        share = max(len(self._rows) / self._max_rows, self._bytes / self._max_bytes)
        self.is_full = share >= (_ROOM_AGAIN if self.is_full else 1.0)
        self.log_fullness()
        metrics.OUTBOX_ROWS.set(len(self._rows))
        metrics.OUTBOX_BYTES.set(self._bytes)

    def _count_unwritten(self, key: str, *, is_written: bool) -> None:
        if is_written:
            self.unwritten.discard(key)
        else:
            self.unwritten.add(key)
        metrics.OUTBOX_UNWRITTEN.set(len(self.unwritten))

    def log_fullness(self) -> None:
        """Log when the outbox becomes full, then once a minute while it is full, and when it has room again."""
        if not self.is_full:
            if (line := self._full.note_success()) is not None:
                log.info("outbox_has_room", rows=len(self._rows), bytes=self._bytes, **line)
        elif (line := self._full.note_failure("the control plane accepts no events, or too slowly")) is not None:
            log.error("outbox_full", rows=len(self._rows), bytes=self._bytes, advice=_FULL_ADVICE, **line)

    def _report(self, error: Exception) -> None:
        metrics.OUTBOX_FAILED.inc()
        self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        if (line := self._unwritable.note_failure(f"{type(error).__name__}: {error}")) is not None:
            log.error("outbox_not_writable", directory=str(self._directory), advice=_UNWRITABLE_ADVICE, **line)

    def _works_again(self) -> None:
        if (line := self._unwritable.note_success()) is not None:
            log.info("outbox_writable", directory=str(self._directory), **line)
