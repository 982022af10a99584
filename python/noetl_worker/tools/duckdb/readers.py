"""A DuckDB file attached to a DuckDB of its own: one writer, or several readers at the same time.

The price of several readers is the file's lock: closing any descriptor of a file drops the locks that the process has
on it (POSIX), so the first reader to end would open the file to another process's writer while the others read. One
lock of ours is renewed after every close until the last reader is gone.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from noetl_worker.errors import ToolError
from noetl_worker.tools.artifact.file_roots import open_regular
from noetl_worker.tools.duckdb.secrets import quoted

try:
    import fcntl
except ImportError:  # not a POSIX system: a lock there belongs to the descriptor, and nothing is dropped
    fcntl = None  # type: ignore[assignment]


@dataclass
class _Guard:
    file: BinaryIO
    readers: int = 0
    is_lost: bool = False
    """Another process got the file between a close and our next lock."""


_guards: dict[str, _Guard] = {}
"""Path -> our lock, while anybody reads the file."""
_changing = threading.RLock()


def bridged(connection: Any) -> str:
    """Make room for a file of any name in a new connection to memory; the name of what it uses until `attach`."""
    bridge = f"noetl_{uuid.uuid4().hex}"
    connection.execute(f"ATTACH ':memory:' AS {bridge}; USE {bridge}; DETACH memory")
    return bridge


def attach(duckdb: Any, connection: Any, database: str, bridge: str, *, read_only: bool) -> None:
    """Make `database` what a connection reads, or has alone, under the name it has when it is opened itself.

    Raises:
        duckdb.Error: as from opening it.
    """
    with _changing if read_only else contextlib.nullcontext():
        try:
            connection.execute(f"ATTACH {quoted(database)}{' (READ_ONLY)' if read_only else ''}")
        except duckdb.Error:
            with _changing:  # of a reader still: one that ends in between would not learn that the lock was lost
                _lock_again(database)  # the file was open for a moment
            raise
        if read_only:
            _lock(database)
    try:
        _use(connection, bridge)
    except BaseException:
        if read_only:
            with contextlib.suppress(ToolError):  # the failure that is under way says more
                detach(connection, database)
        raise


def _use(connection: Any, bridge: str) -> None:
    others = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> ?"
    [(name,)] = connection.execute(others, [bridge]).fetchall()
    connection.execute('USE "{}"; DETACH {}'.format(name.replace('"', '""'), bridge))


def detach(connection: Any, database: str) -> None:
    """Close a connection that `attach` was called for.

    Raises:
        ToolError: db_lock (retryable): what was read may have changed meanwhile.
    """
    with _changing:
        connection.close()
        guard = _guards.get(database)
        if guard is None:
            return
        was_lost = guard.is_lost  # before this close, which only the others suffer from
        guard.readers -= 1
        if guard.readers:
            _lock_again(database)
        else:
            guard.file.close()
            del _guards[database]
    if was_lost:
        text = f"another process opened {database!r} for writing while it was read"
        raise ToolError(text, kind="db_lock", retryable=True)


def _lock(database: str) -> None:
    if not Path(database).is_file() or fcntl is None:  # s3://, https://, a database of another kind
        return
    guard = _guards.get(database)
    if guard is None:
        guard = _guards[database] = _Guard(open_regular(Path(database)))
    guard.readers += 1
    _lock_again(database)


def _lock_again(database: str) -> None:
    guard = _guards.get(database)
    if guard is None:  # nobody else reads it
        return
    try:
        fcntl.lockf(guard.file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        guard.is_lost = True  # every reader that is still there gets it, when it ends
