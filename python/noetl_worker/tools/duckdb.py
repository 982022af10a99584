"""Kind `duckdb`: SQL in an embedded DuckDB (tools.md 2.5), in memory unless a database file is named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.tools import sql
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left

__all__ = ["DuckdbConfig", "DuckdbTool"]

_THREADS: Final = 32
_INTERRUPT_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class DuckdbConfig:
    """`query` may hold several statements; DuckDB itself splits them. `params` go to the last one.

    differs-from-upstream: without `database` nothing is kept between commands (the Python worker keeps a file per
    execution); workers hold no state.
    """

    query: str | list[str]
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    database: str | None = None
    read_only: bool = False
    as_objects: bool = True
    max_rows: int = sql.MAX_ROWS
    timeout: float | None = None


class DuckdbTool:
    kind: ClassVar[str] = "duckdb"
    aliases: ClassVar[tuple[str, ...]] = ("ducklake",)
    config_model: ClassVar[type] = DuckdbConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"queries": "query", "cmd": "query", "cmds": "query"}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, config: DuckdbConfig, context: ToolContext) -> ToolResult:
        work = _Work(config)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="duckdb")
        running = asyncio.get_running_loop().run_in_executor(self._threads, work.run)
        timeout_s = time_left(config.timeout, context)
        try:
            done, _ = await asyncio.wait({running}, timeout=timeout_s)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(_interrupt(work, running)))
            raise
        if not done:
            await _interrupt(work, running)
            return ToolResult.timed_out(timeout_s or 0.0)
        return ToolResult.success(running.result())

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


async def _interrupt(work: _Work, running: asyncio.Future[Any]) -> None:
    """Interrupt until the thread has ended: an interrupt between two statements is lost."""
    while not running.done():
        work.interrupt()
        await asyncio.wait({running}, timeout=_INTERRUPT_AGAIN_S)
    if not running.cancelled():
        running.exception()  # an interrupted statement: told as timeout or cancellation


class _Work:
    """One command in a thread of its own."""

    def __init__(self, config: DuckdbConfig) -> None:
        self._config = config
        self._connection: Any = None
        self._is_stopped = False

    def interrupt(self) -> None:
        self._is_stopped = True
        if self._connection is not None:
            self._connection.interrupt()

    def run(self) -> dict[str, Any]:
        duckdb = _library()
        try:
            self._connection = duckdb.connect(self._config.database or ":memory:", read_only=self._config.read_only)
        except duckdb.Error as error:
            text = f"Failed to open database {self._config.database!r}: {error}"
            raise ToolError(text, kind="connection", retryable=True) from error
        with contextlib.closing(self._connection):
            return self._run_statements(duckdb)

    def _run_statements(self, duckdb: Any) -> dict[str, Any]:
        config = self._config
        try:
            statements = self._connection.extract_statements(sql.script_of(config.query))
        except duckdb.Error as error:
            raise ToolError(f"SQL does not parse: {error}", kind="db_syntax") from error
        if not statements:
            raise ConfigurationError("duckdb: 'query' has no statement")
        batch = sql.Batch(config.as_objects, config.max_rows)
        for number, statement in enumerate(statements, start=1):
            if self._is_stopped:
                raise ToolError("stopped", kind="timeout")
            text = sql.preview(statement.query)
            params = config.params if number == len(statements) else []
            try:
                self._run_one(batch, statement, text, params)
            except duckdb.Error as error:
                kind = "db_constraint" if isinstance(error, duckdb.IntegrityError) else "db_error"
                kind = "db_syntax" if isinstance(error, duckdb.ProgrammingError) else kind
                code = type(error).__name__
                raise ToolError(f"statement {number} ({text}): {error}", kind=kind, code=code) from error
        return batch.data()

    def _run_one(self, batch: sql.Batch, statement: Any, text: str, params: Any) -> None:
        result = self._connection.execute(statement, params or None)
        columns = [column[0] for column in result.description or ()]
        rows = result.fetchmany(batch.max_rows + 1) if columns else []
        if columns == ["Count"] and "SELECT" not in str(statement.type):
            batch.changed(text, rows[0][0] if rows else 0)
        elif columns and rows is not None and columns != ["Success"]:
            batch.returned(text, columns, rows)
        else:
            batch.changed(text, None)


def _library() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ConfigurationError("duckdb is not installed: pip install 'noetl-worker[duckdb]'") from error
    return duckdb
