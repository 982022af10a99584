"""Several readers of one DuckDB file at the same time, each with a DuckDB of its own that has the file attached.

Opened by its name, one file is one instance in a process: what a reader attaches or sets is then everybody's, and
settings are refused once another one uses them.

The price is the file's lock: closing any descriptor of a file drops the locks that the process has on it (POSIX), so
the first reader to end would open the file to another process's writer while the others read. One lock of ours is
renewed after every close until the last reader is gone.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noetl_worker.errors import ToolError
from noetl_worker.tools.duckdb.secrets import quoted

try:
    import fcntl
except ImportError:  # not a POSIX system: a lock there belongs to the descriptor, and nothing is dropped
    fcntl = None  # type: ignore[assignment]

__all__ = ["attach", "bridged", "detach"]


@dataclass
class _Guard:
    descriptor: int
    readers: int = 0
    is_lost: bool = False
    """Another process got the file between a close and our next lock."""


_guards: dict[str, _Guard] = {}
"""Resolved path -> our lock, while anybody reads the file."""
_changing = threading.Lock()


def bridged(connection: Any) -> str:
    """Make room for a file of any name in a new connection to memory; the name of what it uses until `attach`."""
    bridge = f"noetl_{uuid.uuid4().hex}"
    connection.execute(f"ATTACH ':memory:' AS {bridge}; USE {bridge}; DETACH memory")
    return bridge


def attach(duckdb: Any, connection: Any, database: str, bridge: str) -> None:
    """Make `database` what a connection reads, under the name it has when it is opened itself.

    Raises:
        duckdb.Error: as from opening it.
    """
    with _changing:
        try:
            connection.execute(f"ATTACH {quoted(database)} (READ_ONLY)")
        except duckdb.Error:
            _lock_again(database)  # the file was open for a moment
            raise
        _lock(database)
    try:
        others = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> ?"
        [(name,)] = connection.execute(others, [bridge]).fetchall()
        connection.execute('USE "{}"; DETACH {}'.format(name.replace('"', '""'), bridge))
    except BaseException:
        with contextlib.suppress(ToolError):  # the failure that is under way says more
            detach(connection, database)
        raise


def detach(connection: Any, database: str) -> None:
    """Close a connection that `attach` was called for.

    Raises:
        ToolError: db_lock (retryable): what was read may have changed meanwhile.
    """
    with _changing:
        connection.close()
        guard = _guards.get(_key(database))
        if guard is None:
            return
        was_lost = guard.is_lost  # before this close, which only the others suffer from
        guard.readers -= 1
        if guard.readers:
            _lock_again(database)
        else:
            os.close(guard.descriptor)
            del _guards[_key(database)]
    if was_lost:
        text = f"another process opened {database!r} for writing while it was read"
        raise ToolError(text, kind="db_lock", retryable=True)


def _key(database: str) -> str:
    return str(Path(database).resolve())


def _lock(database: str) -> None:
    if not Path(database).is_file() or fcntl is None:  # s3://, https://, a database of another kind
        return
    guard = _guards.get(_key(database))
    if guard is None:
        guard = _guards[_key(database)] = _Guard(os.open(database, os.O_RDONLY | os.O_CLOEXEC))
    guard.readers += 1
    _lock_again(database)


def _lock_again(database: str) -> None:
    guard = _guards.get(_key(database))
    if guard is None:  # nobody else reads it
        return
    try:
        fcntl.lockf(guard.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        guard.is_lost = True  # every reader that is still there gets it, when it ends
