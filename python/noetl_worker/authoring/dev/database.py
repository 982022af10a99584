"""The database of a development control plane, and functions that make ids and times in the form of a real plane."""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from noetl_worker.models.wire import Dialect

EPOCH_MS: Final = 1_704_067_200_000
"""Epoch of the timestamps inside NoETL ids: 2024-01-01T00:00:00Z, as milliseconds since 1970. Every NoETL component
uses this epoch."""
MAX_ID: Final = 2**63 - 1
_NODE: Final = 1

SCHEMA: Final = """
CREATE TABLE commands (
  event_id INTEGER PRIMARY KEY, command_ref TEXT NOT NULL UNIQUE, execution_id INTEGER NOT NULL, node TEXT NOT NULL,
  action TEXT NOT NULL, context BLOB NOT NULL, meta BLOB NOT NULL, status TEXT NOT NULL, worker_id TEXT,
  issued_at REAL NOT NULL, claimed_at REAL, published_at REAL, high_id INTEGER NOT NULL);
CREATE INDEX commands_status ON commands (status);
CREATE TABLE events (
  event_id INTEGER PRIMARY KEY, execution_id INTEGER NOT NULL, event_type TEXT NOT NULL, node TEXT NOT NULL,
  status TEXT NOT NULL, created_at REAL NOT NULL, context BLOB, result BLOB, error TEXT, meta BLOB, worker_id TEXT,
  command_ref TEXT, by_batch INTEGER NOT NULL DEFAULT 0, parent_event_id INTEGER);
CREATE INDEX events_execution ON events (execution_id, event_id);
CREATE INDEX events_command ON events (command_ref, event_type);
CREATE TABLE batches (
  request_id INTEGER PRIMARY KEY, idempotency_key TEXT UNIQUE, execution_id INTEGER NOT NULL, event_ids BLOB NOT NULL,
  state TEXT NOT NULL, error_code TEXT, message TEXT, commands_generated INTEGER, updated_at REAL NOT NULL);
"""


def connect() -> sqlite3.Connection:
    """Open a new database with empty tables. Only this process uses the database, and only from the event loop's
    thread.

    SQLite keeps the data in memory, and writes data beyond its cache to a temporary file.
    """
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode=MEMORY")
    connection.executescript(SCHEMA)
    return connection


def insert_into(table: str, columns: Sequence[str]) -> str:
    """Return the SQL statement that inserts one row, with a `?` for each column."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def moment(at: float | None, *, utc: str = "+00:00") -> str | None:
    """Return a time as an ISO 8601 text with microseconds; None for None.

    Args:
        at: seconds since 1970.
        utc: last characters of the text. The Rust plane writes `Z`, the Python plane mostly `+00:00`.
    """
    if at is None:
        return None
    utc_time = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc)
    return utc_time.strftime("%Y-%m-%dT%H:%M:%S.%f") + utc


class Ids:
    """Makes the ids of one plane. Each id is larger than the id before (protocol/events.md#ids).

    On a real Python plane the database makes the ids. On the Rust plane ids are snowflakes: 63-bit numbers that contain
    the time.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._is_rust = dialect is Dialect.RUST
        self._last = self._last_of_node = 0

    def next(self) -> int:
        if self._is_rust:
            return self.snowflake()
        self._last = max(self._last + 1, _now_ms() << 23)
        return self._last

    def snowflake(self) -> int:
        """Return a snowflake: 41 bits of milliseconds, 10 bits of node, 12 bits of sequence number.

        Both planes give snowflakes to registered workers. After 4096 ids in one millisecond, the next id contains the
        next millisecond.
        """
        self._last_of_node = max(self._last_of_node + 1, _now_ms() << 12)
        millisecond, sequence = divmod(self._last_of_node, 1 << 12)
        return (millisecond << 10 | _NODE) << 12 | sequence


def _now_ms() -> int:
    return time.time_ns() // 1_000_000 - EPOCH_MS
