"""A DuckDB instance that the template process opens, so that a command's process does not need to."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PREPARED_SETTINGS: Final = {"python_enable_replacements": "false", "allow_persistent_secrets": "false"}
"""Settings of every DuckDB of ours. A name that is no table must not become a Python variable, nor its error show our
code. A persistent secret would be a file in our home directory, which every later execution could use."""
_WITHOUT_THREADS: Final = ({"threads": 1, "async_threads": 0}, {"threads": 1})
"""Settings with which DuckDB starts no thread; versions before 2.0 have no `async_threads`."""
_READ_WHEN_OPENED: Final = ("HOME", "TZ")
"""Environment variables that an instance reads when it is opened."""


class PreparedInstance:
    """An empty instance in memory, opened before a fork and taken once after it.

    Opening an instance takes 20 ms, mostly for its catalog of functions. Only a process without threads can be
    forked, so the instance starts none; its user sets the threads. A process forked from the template has a copy of
    its own, which ends with the process.
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self._environment: dict[str, str | None] = {}

    def open(self, duckdb: Any) -> None:
        """Open the instance. Without memory for it, or if DuckDB starts a thread, each command opens its own."""
        for settings in _WITHOUT_THREADS:
            with suppress(Exception):
                connection = duckdb.connect(config={**PREPARED_SETTINGS, **settings})
                if _thread_count() == 1:
                    self._connection, self._environment = connection, _environment()
                    return
                connection.close()

    def take(self) -> Any:
        """Return a connection to the instance, with DuckDB's own number of threads, or None.

        Each connection is new: before 2.0, a connection opened before the fork gives all processes the same random
        numbers.
        """
        if self._connection is None or self._environment != _environment():
            return None
        connection = self._connection.cursor()
        for name in _WITHOUT_THREADS[0]:
            with suppress(Exception):  # before 2.0 there is no `async_threads`
                connection.execute(f"RESET {name}")
        return connection

    def close(self) -> None:
        """Close the instance. It closes its files once no other connection is open."""
        if self._connection is not None:
            self._connection.close()


def _environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in _READ_WHEN_OPENED}


def _thread_count() -> int:
    """Return the number of this process's threads. Raises OSError if the kernel does not tell it."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())
