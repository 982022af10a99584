"""Kind `postgres`: runs SQL through psycopg 3, on a pooled connection that is reset after every command."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolForm
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.kinds.postgres.address import PostgresLogin, check_connection, conninfo, library, parse_schemas
from noetl_worker.tools.kinds.postgres.errors import is_statement_timeout, statement_failure
from noetl_worker.tools.kinds.postgres.params import adapted, unused_values
from noetl_worker.tools.kinds.postgres.pool import ConnectionPools
from noetl_worker.tools.kinds.postgres.rows import read_result, run_text
from noetl_worker.tools.process.shortage import before_any_effect
from noetl_worker.tools.sources.sources import Sources
from noetl_worker.tools.sql import split as sql_split
from noetl_worker.tools.sql import sql
from noetl_worker.tools.sql.source import check_sql, read_sql

CONNECTION_SPELLINGS: Final[Mapping[str, str]] = {
    "db_host": "host",
    "db_port": "port",
    "db_user": "user",
    "db_password": "password",
    "db_name": "database",
    "db_conn_string": "connection_string",
    "dsn": "connection_string",
    "username": "user",
}
_NUMBERED: Final = re.compile(r"(?<![\w$])\$\d")
_IN_ORDER: Final = re.compile(r"%s(?!\w)")
_LONGEST_MS: Final = 2**31 - 1
_BEGINS: Final = ("BEGIN", "START TRANSACTION")
_OTHERWISE: Final = ", or leave BEGIN out (the statements of one text are one transaction)"


@dataclass(frozen=True, slots=True)
class PostgresConfig(PostgresLogin, sql.SqlFields):
    """Run SQL in Postgres. Data, with the last statement's result: {columns, rows, row_count, affected_rows,
    statements, statement_count}, and `truncated: true` when rows were left out. On the Python plane the data also has
    `status`, as from NoETL's own Python worker. If the last statement returns no rows, the Python plane's data also has
    a `message`, and its `row_count` is the number of changed rows (-1: not counted).

    * Several statements of one text are one transaction (unless the text has its own BEGIN and COMMIT): a failing
      statement undoes all statements of the text. A text that leaves a transaction open fails.
    * Settings, `search_path`, temporary tables, locks and prepared statements end with the command.
    * Every statement with rows returns the rows (SELECT, INSERT ... RETURNING, SHOW, EXPLAIN). Only NULL becomes null.
      numeric is exact text, dates and times are ISO 8601, an interval is an ISO 8601 duration, bytea is base64. A json
      or jsonb value stays JSON, an array (up to 256 kB) is a list. NaN and infinities are "NaN", "Infinity",
      "-Infinity". Ranges, inet, enum, composite, hstore and every other type are the server's text.
    * A timeout or a cancelled execution ends the statement on the server too.
    """

    query: str | list[str] | None = None
    """SQL text of one or more statements, or a list of such texts. The server splits a text into its statements."""
    script: str | dict[str, Any] | None = None
    """Source of the SQL, instead of `query`: a path, a file://, http(s)://, gs:// or s3:// address, or {"uri",
    "source": {"type": inline | file | http | gcs | s3, ...}} as in the python kind. The worker renders templates in the
    SQL."""
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    """Values for the placeholders of the last statement: a list for `$1, $2` or `%s`, an object for `%(name)s`. An
    object becomes jsonb. A list becomes an array or JSON, whichever the server expects. The server decides the types of
    the other values."""

    def __post_init__(self) -> None:
        text = check_sql("postgres", self)
        check_numbers(1, max_rows=self.max_rows)
        check_connection(self)
        if text is not None:
            _check_params(text, self.params)


class PostgresTool:
    """Tool of kind `postgres`, with one connection pool for each address (host, user, password, database, ...). A pool
    has at most 8 connections. A connection is closed after a minute without use, and after half an hour in any case. If
    the server has closed a pooled connection, the pool opens a new connection for the next command."""

    kind: ClassVar[str] = "postgres"
    config_model: ClassVar[type] = PostgresConfig
    field_aliases: ClassVar[Mapping[str, str]] = {**CONNECTION_SPELLINGS, **sql.SPELLINGS}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"query_b64"})
    requires: ClassVar[Mapping[str, str]] = {
        "psycopg": "noetl-worker[postgres]",
        "botocore": "noetl-worker[aws] for s3:// scripts",
    }
    imports: ClassVar[tuple[str, ...]] = ("psycopg",)

    def __init__(self, pools: ConnectionPools | None = None) -> None:
        self.pools = pools or ConnectionPools()
        self._sources = Sources(self.kind)

    async def run(self, config: PostgresConfig, context: ToolContext) -> ToolResult:
        with before_any_effect("to fetch what the statement needs"):
            text = await read_sql(self.kind, config, self._sources, context)
            address = await conninfo(self.kind, config, context)
        if config.script is not None:
            try:
                _check_params(text, config.params)
            except ConfigurationError as error:
                raise error.in_tool(self.kind) from error.__cause__
        # When the task is cancelled, psycopg cancels the statement on the server before it returns.
        return await in_time(self._run(address, text, config, context), context.timeout_s)

    async def aclose(self) -> None:
        """Close the idle connections to Postgres, and the HTTP connections that have fetched SQL scripts (`script`)."""
        await self._sources.aclose()
        await self.pools.aclose()

    async def _run(
        self, address: str, text: str, config: PostgresConfig, context: ToolContext
    ) -> dict[str, JsonValue] | ToolResult:
        psycopg = library()
        batch = sql.Batch(config.as_objects, config.max_rows)
        began = time.monotonic()
        async with self.pools.connection(address, session_settings(config.schema, context.timeout_s)) as connection:
            try:
                await _execute(psycopg, connection, text, config, batch, context.stop)
            except psycopg.Error as error:
                if is_statement_timeout(error):
                    return ToolResult.timed_out(round(time.monotonic() - began, 3))
                done = len(batch.statements)
                raise statement_failure(error, text, done, has_params=bool(config.params)) from error
            except UnicodeDecodeError as error:
                raise ToolError(
                    f"{sql.preview(text)}: a value is no UTF-8 text: {error}; select it as bytea", kind="db_error"
                ) from error
            except UnicodeEncodeError as error:
                problem = f"{error}: the session's encoding lacks this character; set client_encoding=UTF8"
                raise ToolError(f"{sql.preview(text)}: {problem}", kind="db_error") from error
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                raise sql.left_open(text, _OTHERWISE)
        if not batch.statements:
            raise ConfigurationError("postgres: 'query' has no statement; write one")
        return _data(batch, context.command.form)


def _data(batch: sql.Batch, form: ToolForm) -> dict[str, JsonValue]:
    """Return the data of the step's result. On the Python plane add a `status`, and for a write a `message`, as
    NoETL's own Python worker does.

    For a statement that changes no rows by itself (DDL), `row_count` is -1 on the Python plane, and `affected_rows` is
    0 on the Rust plane (recorded: pg-writes).
    """
    data = batch.data(form)
    if not form.sql_has_message:
        if not batch.columns and data["affected_rows"] is None:
            data["affected_rows"] = 0
        return data
    data["status"] = "success"
    if not batch.columns:
        if data["affected_rows"] is None:
            data["row_count"] = -1
        data["message"] = f"Command executed. {data['row_count']} rows affected."
    return data


def session_settings(schema: str | None, timeout_s: float | None) -> str:
    """Return the SET statements for the start of a command: `statement_timeout` and `search_path`.

    With `statement_timeout` the server ends a statement even if its worker is gone. The value is a power of two in
    seconds, above the command's remaining time. So commands with nearly the same remaining time can use a connection
    without a new SET.
    """
    settings = []
    if timeout_s is not None:
        server_ms = min(2 ** math.ceil(math.log2(timeout_s + 1)) * 1000, _LONGEST_MS)
        settings.append(f"SET statement_timeout = {server_ms}; ")
    if schema:
        names = ", ".join(library().sql.Identifier(name).as_string(None) for name in parse_schemas(schema))
        settings.append(f"SET search_path TO {names}; ")
    return "".join(settings)


async def _execute(
    psycopg: Any, connection: Any, text: str, config: PostgresConfig, batch: sql.Batch, owner: object
) -> None:
    if not config.params:
        await run_text(connection, text, batch, owner)
        return
    # With parameters the server takes one statement at a time, so the transaction of one text is made here.
    *leading, last = sql_split.statements(text) or [text]
    is_numbered = _is_numbered(last, config.params)
    cursor = psycopg.AsyncRawCursor(connection) if is_numbered else connection.cursor()

    async def run_last() -> None:
        params = await adapted(connection, last, config.params, is_numbered=is_numbered)
        await _with_params(cursor, batch, last, params, owner)

    if not leading:
        await run_last()
    else:
        async with connection.transaction():
            await run_text(connection, ";\n".join(leading), batch, owner)
            await run_last()
            has_own = any(one["statement"] in _BEGINS for one in batch.statements)
            if has_own and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                raise sql.left_open(text, _OTHERWISE)


def _check_params(text: str, params: Any) -> None:
    """Raise ConfigurationError if the last statement has placeholders of two kinds, or a value has no placeholder."""
    if not params or "$" not in text:
        return
    last = (sql_split.statements(text) or [text])[-1]
    if _is_numbered(last, params) and (unused := unused_values(last, params)):
        raise ConfigurationError(
            f"{sql.preview(last)}: 'params' has {len(params)} values, but the statement does not use "
            f"{', '.join(f'${number}' for number in unused)}: leave out the values that it does not use",
            field="params",
        )


def _is_numbered(text: str, params: Any) -> bool:
    """Return True if the placeholders are `$1, $2`. A `%s` within a string is then only text.

    Raises:
        ConfigurationError: there are `%s` placeholders too.
    """
    code = sql_split.bare(text) if isinstance(params, list) and "$" in text else ""
    if _NUMBERED.search(code) is None:
        return False
    if _IN_ORDER.search(code) is not None:
        raise ConfigurationError(
            f"{sql.preview(text)}: the statement has place holders of two kinds, $1 and %s: write all of them as "
            "$1, $2 (if the percent sign is an operator, put a blank after it)",
            field="query",
        )
    return True


async def _with_params(cursor: Any, batch: sql.Batch, text: str, params: Any, owner: object) -> None:
    async with cursor:
        await cursor.execute(text, params)
        command = str(cursor.statusmessage)
        if cursor.description is None:
            batch.changed(command, cursor.rowcount if cursor.rowcount >= 0 else None)
            return
        await read_result(cursor.connection, cursor.pgresult, batch, command, cursor.rowcount, owner)
