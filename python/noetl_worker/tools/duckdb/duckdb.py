"""Kind `duckdb`: SQL in an embedded DuckDB, in memory unless a database file is named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolForm
from noetl_worker.tools.duckdb.files import database_of, turn
from noetl_worker.tools.duckdb.paths import check_sql_files
from noetl_worker.tools.duckdb.secrets import check_secrets, secrets_of
from noetl_worker.tools.duckdb.session import Opening, Stepwise, extension_of, library
from noetl_worker.tools.duckdb.values import reading, with_json
from noetl_worker.tools.ending import ended
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python.python_source import Sources
from noetl_worker.tools.sql import split as sql_split
from noetl_worker.tools.sql import sql
from noetl_worker.tools.sql.source import check_sql, sql_of

_KINDS: Final = (
    ("IntegrityError", "db_constraint"),
    ("TransactionException", "db_transaction"),
    ("OutOfMemoryException", "resource"),
    ("HTTPException", "connection"),
    ("ProgrammingError", "db_syntax"),
)
"""A class of DuckDB's errors, or one above it -> kind; anything else is db_error."""
_MISPLACED: Final = ("no transaction is active", "start a transaction within a transaction")
_COUNTED_AT_A_TIME: Final = 10_000
_WITH_RETURNING: Final = ("INSERT", "UPDATE", "DELETE", "MERGE_INTO")
_KEEPS_MEMORY: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "COPY"})
"""Types of statements that set no memory limit."""
_RETURNING_OR_BRACKET: Final = re.compile(r"[()]|\breturning\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DuckdbConfig:
    """Run SQL in an embedded DuckDB; the data is the last statement's: {columns, rows, row_count, affected_rows,
    statements, statement_count}, and `truncated: true` when rows were left out.

    * Without `database` the tables live in memory and end with the command: workers hold no state.
      Where `NOETL_DATA_DIR` is set each execution has a file instead, `NOETL_DATA_DIR/noetldb/duckdb_<id>.duckdb`, as
      with the Python worker. **Another worker does not see it** (unless the directory is shared), and nobody deletes
      it: use it for playbooks that rely on it, with one worker.
    * Commands of one file run one after the other in this worker (with `read_only` together); a file that another
      process has open is waited for, 30 s at most.
    * Each statement is a transaction of its own unless the text has BEGIN and COMMIT. A text that leaves a transaction
      open fails.
    * Only NULL is null. DECIMAL is exact text, and so are integers beyond 64 bits; date and time ISO 8601, INTERVAL
      an ISO 8601 duration (DuckDB's library counts a month as 30 days), BLOB base64, JSON and STRUCT objects, LIST a
      list, MAP an object, UUID text; NaN and infinities "NaN", "Infinity", "-Infinity", of a date or a moment
      "infinity", "-infinity".
    * Files under /proc and /sys and in the worker's own directories are not for playbooks. `NOETL_WORKER_FILE_ROOTS`
      (directories, separated by `:`) has DuckDB reach nothing else, remote paths included, and load no extension but
      the step's `extensions`. SQL cannot switch DuckDB's own log on (`enable_logging`).
    * A timeout or a cancelled execution interrupts the statement.
    """

    query: str | list[str] | None = None
    """SQL text of one or more statements, or a list of them; DuckDB splits them."""
    query_b64: str | list[str] | None = None
    """The same as base64 of UTF-8; it is not rendered, so `{{` in it is only text."""
    script: str | dict[str, Any] | None = None
    """Where the SQL is, before the others: a path, a file://, http(s)://, gs:// or s3:// address, or
    {"uri", "source": {"type": inline | file | http | gcs | s3, ...}} as in the python kind. Templates in it are
    rendered."""
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    """Values of the place holders of the last statement: a list for `?` or `$1`, an object for `$name`."""
    database: str | None = None
    """Database file, made when it is not there; absent or `:memory:`: see above."""
    read_only: bool = False
    """Open the file for reading: several commands, and other processes, may read it together."""
    auth: str | dict[str, Any] | None = field(default=None, repr=False)
    """Credentials for ATTACH and for s3://, gs:// and https:// paths, as DuckDB secrets: an alias, or an object
    `name: {source: credential, key: alias}` of several. Then `ATTACH '' AS pg (TYPE postgres, SECRET name)`."""
    extensions: list[str] = field(default_factory=list)
    """Extensions to load, installed first when they are not there: `spatial`, or `h3 from community`."""
    memory_limit: str | None = None
    """What the command may use, like 2GB, up to what it has without this: NOETL_DUCKDB_MEMORY_LIMIT, else a share of
    80 % of the machine (with NOETL_WORKER_ISOLATION=off: all of that, and more where it is asked for)."""
    threads: int | None = None
    """Threads of a query; absent: one for each core."""
    as_objects: bool = True
    """Rows as objects; false: as lists in the order of `columns`."""
    max_rows: int = sql.MAX_ROWS
    """Rows kept of the last statement; more are left out and marked by `truncated`."""
    timeout: float | None = None
    """Seconds; absent: what the command has left."""

    def __post_init__(self) -> None:
        check_sql("duckdb", self)
        sql.check_above_zero(max_rows=self.max_rows, threads=self.threads)
        check_secrets("duckdb", self.auth)
        for wanted in self.extensions:
            extension_of("duckdb", wanted)


class DuckdbTool:
    """A database opened for each command and closed after it, in a thread of its own."""

    kind: ClassVar[str] = "duckdb"
    config_model: ClassVar[type] = DuckdbConfig
    field_aliases: ClassVar[Mapping[str, str]] = sql.SPELLINGS
    raw_fields: ClassVar[frozenset[str]] = frozenset({"query_b64"})
    requires: ClassVar[Mapping[str, str]] = {
        "duckdb": "noetl-worker[duckdb]",
        "botocore": "noetl-worker[aws] for s3:// scripts",
    }
    imports: ClassVar[tuple[str, ...]] = ("duckdb",)
    is_confined: ClassVar[bool] = True

    def __init__(self, *, confinement: Confinement = UNCONFINED) -> None:
        self._confinement = confinement
        self._sources = Sources(self.kind)

    async def run(self, config: DuckdbConfig, context: ToolContext) -> ToolResult:
        opening = Opening(
            kind=self.kind,
            database=database_of(config.database, context.command.execution_id),
            read_only=config.read_only,
            memory_limit=config.memory_limit,
            confinement=self._confinement,
            threads=config.threads,
            extensions=tuple(config.extensions),
            secrets=tuple(await secrets_of(self.kind, config.auth, context)),
        )
        text = await sql_of(self.kind, config, self._sources, context)
        check_sql_files(self.kind, text, config.params)
        batch = sql.Batch(config.as_objects, config.max_rows)

        def body(steps: Stepwise, connection: Any) -> dict[str, JsonValue]:
            run_script(steps, connection, batch, text, config.params)
            return _data(batch, context.command.form)

        ours = turn(opening.database, read_only=opening.read_only)
        return await run_opened(ours, opening, body, context.timeout_s)

    async def aclose(self) -> None:
        await self._sources.aclose()


def _data(batch: sql.Batch, form: ToolForm) -> dict[str, JsonValue]:
    """On the Python plane also under the names that its worker gives each statement (recorded: duckdb-multi), where
    JSON is the text that it is there (duckdb-json)."""
    data = batch.data(form)
    if form.numbers_statements:
        data["executed_commands"] = len(batch.statements)
        for number, (statement, sample) in enumerate(zip(batch.statements, batch.samples, strict=True), 1):
            if sample:
                data[f"command_{number}_rows"] = statement["row_count"] or len(sample)
                data[f"command_{number}_sample"] = sample
    return data


async def run_opened(
    ours: AbstractAsyncContextManager[None],
    opening: Opening,
    body: Callable[[Stepwise, Any], dict[str, JsonValue]],
    timeout_s: float | None,
) -> ToolResult:
    """`body`'s data as a result, once it is our turn; a timeout counts both."""

    async def call() -> dict[str, JsonValue]:
        async with ours, Stepwise(opening) as steps:
            return await steps.do(lambda connection: body(steps, connection))

    running = asyncio.ensure_future(call())
    try:
        await asyncio.wait({running}, timeout=timeout_s)
    finally:  # not asyncio.wait_for: up to Python 3.11 a second cancellation goes on before the thread has ended
        if not running.done():
            running.cancel()
            await ended(asyncio.gather(running, return_exceptions=True))
    return ToolResult.timed_out(timeout_s or 0.0) if running.cancelled() else ToolResult.success(running.result())


def run_script(steps: Stepwise, connection: Any, batch: sql.Batch, text: str, params: Any) -> dict[str, JsonValue]:
    """Run every statement of `text`, `params` with the last one; the data of `batch`.

    Raises:
        ToolError: which statement failed, and what DuckDB reported.
    """
    duckdb = library()
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise ToolError(f"SQL does not parse: {error}", kind="db_syntax") from error
    if not statements:
        raise ConfigurationError("'query' has no statement")
    for number, statement in enumerate(statements, start=1):
        if steps.is_stopped:
            raise ToolError("stopped", kind="cancelled")
        shown = sql.preview(statement.query)
        try:
            _run_one(duckdb, connection, batch, statement, params if number == len(statements) else [])
        except (duckdb.Error, OverflowError) as error:
            raise statement_failure(error, f"statement {number} ({shown})") from error
        if statement.type.name not in _KEEPS_MEMORY:
            steps.keep_memory()
    _check_ended(duckdb, connection, text)
    return batch.data()


def _check_ended(duckdb: Any, connection: Any, text: str) -> None:
    """Raises ToolError when a transaction is open: the end of the connection would undo it silently."""
    try:
        connection.begin()  # DuckDB shows it in no other way
    except duckdb.TransactionException as error:
        raise sql.left_open(text) from error
    connection.rollback()


def statement_failure(error: Any, what: str) -> ToolError:
    """What DuckDB reported about `what`, as a ToolError; an OverflowError is of a value that Python has no room for."""
    if isinstance(error, OverflowError):
        return ToolError(f"{what}: a value is too large for Python: {error}: CAST it to VARCHAR", kind="db_error")
    names = {base.__name__ for base in type(error).__mro__}
    kind = next((kind for name, kind in _KINDS if name in names), "db_error")
    # BEGIN, COMMIT or ROLLBACK where it does not belong fails each time, and what was committed before it is kept.
    again = kind == "db_transaction" and not any(words in str(error) for words in _MISPLACED)
    return ToolError(f"{what}: {error}", kind=kind, code=type(error).__name__, retryable=again)


def _run_one(duckdb: Any, connection: Any, batch: sql.Batch, statement: Any, params: Any) -> None:
    shown = sql.preview(statement.query)
    special = reading(duckdb, connection, statement, params)
    result = connection.execute(special.text if special else statement, params or None)
    described = result.description or ()
    columns = list(special.names) if special else [column[0] for column in described]
    rows = result.fetchmany(batch.max_rows + 1) if columns else []
    if columns == ["Count"] and _counts(statement):
        batch.changed(shown, rows[0][0] if rows else 0)
        if not rows:
            batch.samples[-1] = []
    elif columns and not (columns == ["Success"] and not rows and _may_give_nothing(statement)):
        types = [str(column[1]) for column in described[: len(columns)]]
        given = special.rows(rows) if special else rows
        affected = len(rows) + _number_of_more(result) if _is_returning(statement) else None
        batch.returned(shown, columns, with_json(given, types), first=given, affected=affected)
    else:
        batch.changed(shown, None)


def _number_of_more(result: Any) -> int:
    count = 0
    while rows := result.fetchmany(_COUNTED_AT_A_TIME):
        count += len(rows)
    return count


def _counts(statement: Any) -> bool:
    """Whether the one column that DuckDB names `Count` is the number of changed rows, not a column of the author's.

    DuckDB expects rows or a count from the same statements; only RETURNING shows which. PIVOT is one of several
    statements to it (MULTI), from which it expects anything.
    """
    can_change = any(kind.name == "CHANGED_ROWS" for kind in statement.expected_result_type)
    return can_change and statement.type.name != "MULTI" and not _is_returning(statement)


def _may_give_nothing(statement: Any) -> bool:
    """Whether an empty column `Success` is only DuckDB's way to say that it is done (SET, ATTACH, CHECKPOINT)."""
    return statement.type.name != "SELECT" and not _is_returning(statement)


def _is_returning(statement: Any) -> bool:
    if statement.type.name not in _WITH_RETURNING:
        return False
    depth = 0
    for token in _RETURNING_OR_BRACKET.findall(sql_split.bare(statement.query)):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0 and token not in "()":  # deeper, it is a statement's within this one
            return True
    return False
