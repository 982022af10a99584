"""A DuckDB instance opened in advance, in the warm process from which the process of each command is forked. So the
command's process need not open an instance."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PREPARED_SETTINGS: Final = {"python_enable_replacements": "false", "allow_persistent_secrets": "false"}
"""Settings of every DuckDB connection, for safety. With replacement scans, SQL could read our Python variables as
tables, and an error would show our code. A persistent secret would be a file in our home directory, for every later
execution."""
_WITHOUT_THREADS: Final = ({"threads": 1, "async_threads": 0}, {"threads": 1})
"""Settings with which DuckDB starts no thread, in the order to try them; versions before 2.0 have no
`async_threads`."""
_READ_WHEN_OPENED: Final = ("HOME", "TZ")
"""Environment variables that DuckDB reads only when an instance is opened. A command with another value of one of these
variables cannot use a prepared instance."""


class PreparedInstance:
    """An empty DuckDB instance in memory. A warm process opens the instance once. The process of each command is forked
    from the warm process, and uses its copy of the instance.

    Opening an instance takes 20 ms, mostly for DuckDB's catalog of functions. Only a process without threads can be
    forked, so the instance starts no thread. A command sets the number of threads after the fork.
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self._environment: dict[str, str | None] = {}

    def open(self, duckdb: Any) -> None:
        """Open the instance in the warm process, from which the process of each command is forked. If opening fails or
        starts a thread, keep no instance: each command's process then opens an instance itself."""
        for settings in _WITHOUT_THREADS:
            with suppress(Exception):
                connection = duckdb.connect(config={**PREPARED_SETTINGS, **settings})
                if _thread_count() == 1:
                    self._connection, self._environment = connection, _environment()
                    return
                connection.close()

    def take(self) -> Any:
        """Return a new connection to the instance, with DuckDB's default number of threads. Return None without an
        instance, or if HOME or TZ has changed since the instance was opened.

        The connection is new, because with a connection opened before the fork all processes would get the same random
        numbers (DuckDB before 2.0).
        """
        if self._connection is None or self._environment != _environment():
            return None
        connection = self._connection.cursor()
        for name in _WITHOUT_THREADS[0]:
            with suppress(Exception):  # before 2.0 there is no `async_threads`
                connection.execute(f"RESET {name}")
        return connection

    def close(self) -> None:
        """Close the connection that opened the instance. DuckDB closes files only when no connection is left."""
        if self._connection is not None:
            self._connection.close()


def _environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in _READ_WHEN_OPENED}


def _thread_count() -> int:
    """Return the number of this process's threads. Raises OSError if the kernel does not tell the number."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())
