"""The database file that a `duckdb` command opens, and the commands that may have it open at the same time.

DuckDB lets one process write a file. Within this worker the commands of one file take turns (readers together), so
that whatever one of them attaches or sets is gone before the next. If another process has the file open, the opening
is tried again.
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
"""Variable: the directory of the executions' database files."""
_OWNER: Final = re.compile(r"duckdb_(.+)\.duckdb")


def command_database(given: str | None, execution_id: int, settings: ToolSettings) -> str:
    """Return the database that a command opens, as `canonical` names it. `given` is the config's `database`.

    Raises:
        ConfigurationError: the file of another execution, or a data directory that cannot be made.
    """
    data_dir = settings.data_dir
    directory = (Path(data_dir) / "noetldb").resolve() if data_dir else None
    if given:
        database = canonical("duckdb: 'database'", given, settings)
        path = Path(database)
        owner = _OWNER.fullmatch(path.name)
        if path.parent == directory and owner is not None and owner[1] != str(execution_id):
            raise ConfigurationError(f"duckdb: {database!r} belongs to execution {owner[1]}, not to {execution_id}")
        return database
    if directory is None:
        return MEMORY
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"duckdb: {DATA_DIR}={data_dir!r} cannot be used: {error}") from error
    return str(directory / f"duckdb_{execution_id}.duckdb")


# ── turns ───────────────────────────────────────────────────────────────────────────────────────


class _Turns:
    """The users of one file: one writer, or readers."""

    def __init__(self) -> None:
        self.readers = 0
        self.is_written = False
        self.changed = asyncio.Condition()


_turns: WeakValueDictionary[tuple[int, str], _Turns] = WeakValueDictionary()
"""(event loop, file) -> its turns, as long as a command has or awaits one."""


@asynccontextmanager
async def turn(database: str, *, read_only: bool) -> AsyncIterator[None]:
    """Wait until this command may have the file open. A database in memory is never shared.

    Args:
        database: its name, as returned by `canonical`.
    """
    if database == MEMORY:
        yield
        return
    turns = _turns.setdefault((id(asyncio.get_running_loop()), database), _Turns())
    async with turns.changed:
        await turns.changed.wait_for(lambda: not turns.is_written and (read_only or not turns.readers))
        turns.readers += read_only
        turns.is_written = not read_only
    try:
        yield
    finally:
        turns.readers -= read_only
        turns.is_written = False  # nobody writes while others read
        async with turns.changed:
            turns.changed.notify_all()
