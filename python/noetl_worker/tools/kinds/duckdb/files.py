"""The database file that a `duckdb` command opens, and a lock for each file between the commands of this worker.

DuckDB lets only one process write a file. So a command that writes a file has the file alone; commands that only read
share the file. A command's ATTACH and SET are gone before the next command begins. `connection.py` waits for other
processes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb.paths import MEMORY, canonical

DATA_DIR: Final = "NOETL_DATA_DIR"
"""Environment variable with the directory of the executions' database files."""
_OWNER: Final = re.compile(r"duckdb_(.+)\.duckdb")


def command_database(given: str | None, execution_id: int, settings: ToolSettings) -> str:
    """Return the database that a command opens: an absolute path, an address or `MEMORY`. `given` is the config's
    `database`.

    Raises:
        ConfigurationError: `given` is the file of another execution, or the data directory cannot be created.
    """
    data_dir = settings.data_dir
    directory = (Path(data_dir) / "noetldb").resolve() if data_dir else None
    if given:
        database = canonical("duckdb: 'database'", given, settings)
        path = Path(database)
        owner = _OWNER.fullmatch(path.name)
        if path.parent == directory and owner is not None and owner[1] != str(execution_id):
            raise ConfigurationError(f"duckdb: {database!r} belongs to execution {owner[1]}: name another file")
        return database
    if directory is None:
        return MEMORY
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"duckdb: {DATA_DIR}={data_dir!r} cannot be used: {error}: name a directory that the worker may write to"
        ) from error
    return str(directory / f"duckdb_{execution_id}.duckdb")


# ── locks ───────────────────────────────────────────────────────────────────────────────────────


class _FileLock:
    """Read-write lock of one database file: held by one writing command alone, or shared by any number of reading
    commands."""

    def __init__(self) -> None:
        self.readers = 0
        self.is_written = False
        self.changed = asyncio.Condition()


_locks: WeakValueDictionary[tuple[int, str], _FileLock] = WeakValueDictionary()
"""Locks of the database files in use, by (id of the event loop, path). An entry exists while a command holds its lock
or waits for it."""


@asynccontextmanager
async def hold_lock(database: str, *, read_only: bool) -> AsyncIterator[None]:
    """Wait for the lock of a database file, and hold the lock during the caller's `async with` block. A database in
    memory needs no lock.

    Args:
        database: name of the database, as `canonical` returns it.
        read_only: True to share the lock with other reading commands.
    """
    if database == MEMORY:
        yield
        return
    lock = _locks.setdefault((id(asyncio.get_running_loop()), database), _FileLock())
    async with lock.changed:
        await lock.changed.wait_for(lambda: not lock.is_written and (read_only or not lock.readers))
        lock.readers += read_only
        lock.is_written = not read_only
    try:
        yield
    finally:
        lock.readers -= read_only
        lock.is_written = False  # nobody writes while others read
        async with lock.changed:
            lock.changed.notify_all()
