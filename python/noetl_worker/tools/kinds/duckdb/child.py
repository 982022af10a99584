"""The process that runs one DuckDB command. The process has the command's only connection, and ends with the command.

The worker sends requests (`session.py`). A request is one frame, and its answer is one line of JSON. The first request
says which database to open. The process is forked from a warm process (`python_template.py`). The warm process has
loaded DuckDB, has opened an empty database instance, and has no threads.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

from noetl_worker.errors import ResourceShortage, ToolError, describe
from noetl_worker.tools import requirements
from noetl_worker.tools.kinds.duckdb import typed_values
from noetl_worker.tools.kinds.duckdb.connection import opened
from noetl_worker.tools.kinds.duckdb.opening import FirstRequest, Surroundings
from noetl_worker.tools.kinds.duckdb.prepared import PreparedInstance
from noetl_worker.tools.kinds.duckdb.statements import run_script, statement_failure
from noetl_worker.tools.kinds.duckdb.values import SelectWithTexts, reading
from noetl_worker.tools.process import landlock
from noetl_worker.tools.process.shortage import raise_shortage
from noetl_worker.tools.python.python_exchange import begin, encode, receive, send_text
from noetl_worker.tools.sql import sql

_PIECE_BYTES: Final = 8 << 20
"""Approximate maximum of bytes of rows, as JSON text, in one answer. The rows beyond this limit go into the next
answer."""
_ATTACHED: Final = "SELECT 1 FROM duckdb_databases() WHERE NOT internal AND path IS NOT NULL"
BATCH: Final = ("columns", "rows", "truncated", "statements", "samples")
"""Fields of `sql.Batch` (the results of a SQL script) that the DuckDB process sends to the worker."""


_PREPARED: Final = PreparedInstance()


def prepare() -> None:
    """Load DuckDB and open a database instance in the warm process, from which the process of each command is forked.
    Forked processes then start faster. After a failure, each command's process tries again and reports the failure."""
    with suppress(ImportError, OSError, RuntimeError, MemoryError):
        _PREPARED.open(importlib.import_module("duckdb"))


def run_command(channel: int) -> NoReturn:
    """Run the process of one DuckDB command: answer the worker's requests on `channel`, then exit."""
    status = 1
    faulthandler.unregister(signal.SIGTERM)  # a traceback of our code does not help an author of SQL
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # nobody reads the output of libraries, and it may contain a secret
        os.dup2(quiet, stream)
    os.close(quiet)
    try:
        begin(channel, os.getpid())
        _serve(channel)
        status = 0
    finally:
        os._exit(status)


def _serve(channel: int) -> None:
    """Answer the worker's requests: one SQL script, or reads and writes of a `transfer` step's rows until the worker
    closes the channel."""
    child: Child | None = None
    try:
        while True:
            request = receive(channel)
            is_script = request["op"] == "run"
            try:
                child = child or Child(FirstRequest.from_request(request))
                try:
                    answer = child.answer(request)
                finally:
                    if is_script:  # another process may open the file as soon as the worker has the answer
                        child.close()
            except BaseException as error:
                answer = _error_answer(error)
            send_text(channel, answer + "\n")
            if is_script:
                return
    except EOFError:
        if child is not None:
            child.close()  # rolls back what is not committed


def _error_answer(error: BaseException) -> str:
    """Return the JSON answer that reports an exception to the worker."""
    if isinstance(error, MemoryError):
        error = ToolError(f"DuckDB has no memory left ({describe(error)}): select less", kind="resource")
    if not isinstance(error, ToolError):
        error = ToolError(describe(error), code=type(error).__name__)
    report = {"message": str(error), "kind": error.kind, "retryable": error.retryable, "code": error.code}
    return encode({"error": {**report, "is_shortage": isinstance(error, ResourceShortage)}})


class Child:
    """The process's only DuckDB connection, with a method for each kind of request."""

    def __init__(self, start: FirstRequest) -> None:
        _surround(start)
        self._duckdb = requirements.library("duckdb", "duckdb")
        self._connection = opened(self._duckdb, _PREPARED, start)
        self._select: SelectWithTexts | None = None
        self._unsent: list[Any] = []
        """Rows that were read but did not fit into an answer."""

    def answer(self, request: Mapping[str, Any]) -> str:
        """Run one request of the worker and return its result as JSON. The request is a SQL script, or one step of
        reading or writing rows for a `transfer` step."""
        if request["op"] == "run":
            return self._run(request)
        steps = {"open": lambda _: "{}", "execute": self._execute, "select": self._begin_select, "fetch": self._fetch}
        return steps[request["op"]](request)

    def close(self) -> None:
        """Close the databases, so that their files are complete and unlocked.

        A database in memory stays open until the process ends, which is 8 ms faster.
        """
        with suppress(self._duckdb.Error):  # by a cursor: the connection's transaction may have failed
            if not self._connection.cursor().execute(_ATTACHED).fetchall():
                return
        self._connection.close()
        _PREPARED.close()

    def _run(self, request: Mapping[str, Any]) -> str:
        """Run a SQL script and return its results as JSON: the fields of a `sql.Batch` that the constant BATCH
        lists."""
        batch = sql.Batch(request["as_objects"], request["max_rows"])
        run_script(self._duckdb, self._connection, batch, request["text"], request["params"])
        return encode({name: getattr(batch, name) for name in BATCH})

    def _execute(self, request: Mapping[str, Any]) -> str:
        try:
            return encode({"rows": self._connection.execute(request["text"], request["params"]).fetchall()})
        except self._duckdb.Error as error:
            raise statement_failure(error, request["what"]) from error

    def _begin_select(self, request: Mapping[str, Any]) -> str:
        query, connection = request["text"], self._connection
        try:
            *before, last = connection.extract_statements(query) or [query]
            for statement in before:
                connection.execute(statement)
            select = None if before or last is query else reading(self._duckdb, connection, last)
            columns = connection.execute(select.text if select else last).description or ()
        except self._duckdb.Error as error:
            raise statement_failure(error, request["what"]) from error
        self._select = select
        names = select.names if select else [column[0] for column in columns]
        return encode({"columns": [[name, str(column[1])] for name, column in zip(names, columns, strict=False)]})

    def _fetch(self, request: Mapping[str, Any]) -> str:
        """Return the next rows of the current query: the requested number, or fewer if the answer would be too long.
        `more` is true if rows that were already read are left for the next answer."""
        try:
            rows = self._unsent or self._connection.fetchmany(request["count"])
        except (self._duckdb.Error, OverflowError) as error:
            raise statement_failure(error, request["what"]) from error
        if self._select is not None and not self._unsent:
            rows = self._select.rows(rows)
        texts, size = [], 0
        for row in rows:
            texts.append(encode([typed_values.written(value) for value in row]))
            size += len(texts[-1])
            if size > _PIECE_BYTES:
                break
        self._unsent = rows[len(texts) :]
        return f'{{"rows":[{",".join(texts)}],"more":{encode(bool(self._unsent))}}}'


def _surround(start: FirstRequest) -> None:
    around = start.surroundings
    wanted = around.environment  # most variables stay as in the template process: a change costs time
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})
    if "TZ" in wanted:
        time.tzset()
    os.chdir(around.cwd)
    if around.is_restricted:
        _restrict(start, around)


def _restrict(start: FirstRequest, around: Surroundings) -> None:
    try:
        landlock.restrict(tuple(around.hidden), start.reached())
    except OSError as error:
        kind = start.opening.kind
        raise_shortage("to confine DuckDB", error)
        remedy = "to run DuckDB unconfined, set NOETL_WORKER_ISOLATION=off"
        text = f"{kind}: DuckDB cannot be kept from /proc and /sys here: {error}; {remedy}"
        raise ToolError(text, kind="configuration") from error
