"""The worker's requests to DuckDB processes. Each command has a process (`child.py`), which runs one SQL script, or
reads or writes the rows of a `transfer` step.

The worker does not load DuckDB, and reads only JSON from the process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ResourceShortage, ToolError
from noetl_worker.models.fit import LESS_ADVICE
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools import file_roots, requirements
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.ending import ended
from noetl_worker.tools.kinds.duckdb import typed_values
from noetl_worker.tools.kinds.duckdb.opening import (
    EXTENSION_DIRECTORY,
    EXTENSION_REPOSITORY,
    MEMORY_LIMIT,
    FirstRequest,
    Opening,
    Surroundings,
)
from noetl_worker.tools.kinds.duckdb.paths import check_sql_files
from noetl_worker.tools.process import landlock, process
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.process.own_logins import without_logins
from noetl_worker.tools.python.python_answer import AnswerTooLong, Conversation
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.sql import sql

_CHILD: Final = "noetl_worker.tools.kinds.duckdb.child"
_VARIABLES: Final = frozenset(
    {
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("ssl_cert_file", "ssl_cert_dir", "curl_ca_bundle", "aws_region", "aws_default_region"),
    }
)
"""Environment variables, in lower case, that the worker passes on to DuckDB's extensions. These variables contain no
secret."""
_OUT_OF_MEMORY: Final = (-signal.SIGKILL, -signal.SIGABRT)


class Duckdb:
    """Starter of a tool's DuckDB processes, one for each command, which are forked from a warm process. `aclose` ends
    the warm process."""

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        self._is_restricted = confinement.is_on and landlock.is_there()
        # DuckDB has limits of its own for files and memory
        self._runner = PythonRunner(confinement=replace(confinement, file_bytes=0, memory_bytes=0), serving=_CHILD)

    def check_files(self, kind: str, text: str, settings: ToolSettings, params: Any = ()) -> None:
        """Check the file names in SQL, unless Landlock already denies the DuckDB process all forbidden files.

        Raises:
            ConfigurationError: playbooks may not read one of the files.
        """
        if not self._is_restricted or file_roots.within_reach(settings):
            check_sql_files(kind, text, settings, params)

    async def run(
        self,
        ours: AbstractAsyncContextManager[None],
        opening: Opening,
        batch: sql.Batch,
        text: str,
        params: Any,
        context: ToolContext,
    ) -> ToolResult | None:
        """Run every statement of `text` in a DuckDB process, and record the results in `batch`. The last statement gets
        `params`.

        `ours` is the lock of the database file (`files.hold_lock`). The process starts once this command holds the
        lock.

        Returns:
            None if the statements ran. A timeout result if waiting for the lock and running the statements took longer
            than the command's remaining time.

        Raises:
            ToolError: a statement failed. The error text has the statement and DuckDB's report.
        """
        step: dict[str, JsonValue] = {"op": "run", "text": text, "params": params}
        step |= {"as_objects": batch.as_objects, "max_rows": batch.max_rows}

        async def call() -> None:
            async with ours, self._start(opening, context.settings) as start:
                try:
                    run = await self._runner.run({**start.request(), **step})
                except AnswerTooLong as error:
                    raise ToolError(f"{opening.kind}: the rows are {error}: {LESS_ADVICE}", kind="resource") from error
                if run.answer is None:
                    raise _death(opening.kind, run)
                _fill(batch, _checked(run.answer))

        running, timeout_s = asyncio.ensure_future(call()), context.timeout_s
        try:
            await asyncio.wait({running}, timeout=timeout_s)
        finally:  # not asyncio.wait_for: up to Python 3.11 a second cancellation goes on before the process has ended
            if not running.done():
                running.cancel()
                await ended(asyncio.gather(running, return_exceptions=True))
        if running.cancelled():
            return ToolResult.timed_out(timeout_s or 0.0)
        return running.result()

    @asynccontextmanager
    async def opened(self, opening: Opening, settings: ToolSettings) -> AsyncIterator[Session]:
        """Provide a DuckDB process that reads or writes the rows of a `transfer` step. End the process after the
        caller's `async with` block.

        Raises:
            ToolError: the database cannot be opened.
            ConfigurationError: the database cannot be opened, because the config is wrong.
        """
        async with self._start(opening, settings) as start:
            session = Session(opening.kind, self._runner, start)
            try:
                await session.answered()
                yield session
            except BaseException:
                await session.end()
                raise
            await session.end()

    async def aclose(self) -> None:
        await self._runner.aclose()

    def _surroundings(self, directory: str, settings: ToolSettings) -> Surroundings:
        own = {name: value for name, value in os.environ.items() if name.lower() in _VARIABLES}
        of_duckdb = {
            MEMORY_LIMIT: settings.duckdb_memory_limit,
            EXTENSION_DIRECTORY: settings.duckdb_extension_directory,
            EXTENSION_REPOSITORY: settings.duckdb_extension_repository,
        }
        return Surroundings(
            directory=directory,
            cwd=str(Path.cwd()),
            environment={**process.base_environment(), **own, **without_logins()},
            settings={name: text for name, text in of_duckdb.items() if text},
            roots=tuple(map(str, file_roots.roots(settings))),
            is_restricted=self._is_restricted,
            hidden=file_roots.hidden(settings),
            share_bytes=self._confinement.duckdb_bytes,
        )

    @asynccontextmanager
    async def _start(self, opening: Opening, settings: ToolSettings) -> AsyncIterator[FirstRequest]:
        """Provide the first request to a DuckDB process, with a temporary directory that exists during the caller's
        `async with` block. Then remove all temporary files, because a killed process leaves such files behind."""
        requirements.check("duckdb", "duckdb")
        async with self._runner.scratch.directory() as directory:
            start = FirstRequest(opening, self._surroundings(directory, settings))
            try:
                yield start
            finally:
                shutil.rmtree(start.spill, ignore_errors=True)


class Session:
    """A DuckDB process that reads or writes the rows of a `transfer` step, one request of the worker at a time."""

    def __init__(self, kind: str, runner: PythonRunner, start: FirstRequest) -> None:
        self._kind = kind
        self._conversation = Conversation()
        first = {**start.request(), "op": "open"}
        self._run = asyncio.ensure_future(runner.run(first, conversation=self._conversation))
        self._is_asked = True

    async def execute(self, what: str, text: str, params: Sequence[Any] | None = None) -> list[Any]:
        """Run a statement and return its rows as JSON values. `what` names the statement in errors."""
        answer = await self._ask({"op": "execute", "what": what, "text": text, "params": params})
        return _listed(answer, "rows")

    async def select(self, what: str, text: str) -> list[tuple[str, str]]:
        """Start a SELECT in the DuckDB process, and return the names and types of its columns. `fetch` then returns the
        rows."""
        answer = await self._ask({"op": "select", "what": what, "text": text})
        return [(str(column[0]), str(column[1])) for column in _listed(answer, "columns")]

    async def fetch(self, what: str, count: int) -> list[list[Any]]:
        """Return the next rows of the query that `select` started, at most `count`."""
        rows: list[list[Any]] = []
        is_more = True
        while is_more:
            answer = await self._ask({"op": "fetch", "what": what, "count": count})
            rows += [[typed_values.read(value) for value in row] for row in _listed(answer, "rows")]
            is_more = answer.get("more") is True and len(rows) < count
        return rows

    async def answered(self) -> Mapping[str, JsonValue]:
        """Wait for the DuckDB process to answer the last request, and return its answer."""
        try:
            answer = await self._conversation.answered(self._run)
        except AnswerTooLong as error:
            text = f"{self._kind}: the rows of one chunk are {error}: set a smaller 'chunk_size'"
            raise ToolError(text, kind="resource") from error
        if answer is None:
            raise _death(self._kind, self._run.result())
        self._is_asked = False
        return _checked(answer)

    async def end(self) -> None:
        """End the DuckDB process. A process that has not answered the last request is killed; any other process closes
        its database first."""
        if self._is_asked:
            self._run.cancel()
        else:
            self._conversation.end()
        await ended(asyncio.gather(self._run, return_exceptions=True))

    async def _ask(self, request: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        self._conversation.ask(request)
        self._is_asked = True
        return await self.answered()


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


def _checked(answer: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return a DuckDB process's answer, or raise the error that the answer reports."""
    error = answer.get("error")
    if not isinstance(error, Mapping):
        return answer
    message, code = str(error.get("message")), error.get("code")
    if error.get("is_shortage") is True:
        raise ResourceShortage(message)
    if error.get("kind") == ConfigurationError.default_kind:
        raise ConfigurationError(message)
    again = error.get("retryable") is True
    raise ToolError(message, kind=str(error.get("kind")), retryable=again, code=None if code is None else str(code))


def _death(kind: str, run: process.Finished) -> ToolError:
    said = f"{kind}: the process of DuckDB {process.exit_text(run.exit_code)}"
    if run.has_met_oom or run.exit_code in _OUT_OF_MEMORY:
        text = f"{said}: the SQL may need more memory; raise {MEMORY_LIMIT}, or select less"
        return ToolError(text, kind="resource")
    text = f"{said} before the process had an answer: run the step again, and report a crash that repeats"
    return ToolError(text, kind="process")


def _listed(answer: Mapping[str, JsonValue], name: str) -> list[Any]:
    """Return the field `name` of an answer if the field is a list of lists. Raises ToolError for any other value."""
    found = answer.get(name)
    if isinstance(found, list) and all(isinstance(row, list) for row in found):
        return found
    raise ToolError(f"the DuckDB process answers without {name!r}: report this bug", kind="process")


def _fill(batch: sql.Batch, answer: Mapping[str, Any]) -> None:
    """Copy the result of a SQL script from the DuckDB process's answer into `batch`, the record of the command's
    statements and results. Raise ToolError if the answer lacks a part of the result."""
    statements, columns, rows = answer.get("statements"), answer.get("columns"), answer.get("rows")
    samples = _listed(answer, "samples")
    if not (isinstance(columns, list) and isinstance(rows, list) and isinstance(statements, list) and statements):
        raise ToolError("the DuckDB process answers without the data of a script: report this bug", kind="process")
    for statement in statements:
        if not isinstance(statement, dict) or not {"statement", "row_count", "affected_rows"} <= statement.keys():
            raise ToolError("the DuckDB process sent a statement without its fields: report this bug", kind="process")
    batch.statements, batch.columns, batch.rows = statements, [str(column) for column in columns], rows
    batch.truncated, batch.samples = answer.get("truncated") is True, samples
