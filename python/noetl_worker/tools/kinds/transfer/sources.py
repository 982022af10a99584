"""The sources of a transfer: each gives its columns, then chunks of rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.models.tool_result import ToolStatus
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.process.threads import off_loop
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.http.answer import part_at
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.paths import MEMORY, canonical
from noetl_worker.tools.kinds.duckdb.secrets import fetch_secrets
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.kinds.duckdb.values import with_json
from noetl_worker.tools.kinds.postgres.address import conninfo, library
from noetl_worker.tools.kinds.postgres.connection import connect
from noetl_worker.tools.kinds.postgres.errors import statement_failure
from noetl_worker.tools.kinds.postgres.postgres import session_settings
from noetl_worker.tools.kinds.snowflake import snowflake
from noetl_worker.tools.kinds.transfer.ends import RENDERED_BY_HTTP, SENT_BY_HTTP, TransferSource
from noetl_worker.tools.kinds.transfer.plan import JsonText, PostgresSession, json_inside

Row = Sequence[Any]
_MOST_COLUMNS: Final = 2_000
"""Maximum number of columns of a source. A Postgres table has at most 1,600."""
_MOST_VALUES: Final = 10_000_000

_DUCKDB_TYPES: Final[Mapping[str, str]] = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "oid": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "uuid": "UUID",
    "bytea": "BLOB",
    "json": "JSON",
    "jsonb": "JSON",
}
"""Type of a Postgres column -> DuckDB's type. Any other type is VARCHAR."""


@dataclass(frozen=True)
class SourceReader:
    """An opened source of a transfer: its columns, and a function that reads its rows in chunks."""

    columns: list[str]
    """Names of the columns, in order."""
    types: Mapping[str, str]
    """Name of a column -> DuckDB's name for the column's type; empty if the source has no types."""
    fetch: Callable[[], Awaitable[Sequence[Row]]]
    """Function that returns the next chunk of rows, or an empty sequence after the last chunk."""
    all_rows: Sequence[Row] = ()
    """All rows, if the source reads all rows at once. Their values decide the types of a new table's columns."""
    session: PostgresSession | None = None
    """Session that reads the rows of a Postgres source; None for any other source."""

    def picked(self, rows: Sequence[Row], paths: Sequence[str]) -> list[list[Any]]:
        """Return each row's values at `paths`: names of columns, or dotted paths into the objects of a column."""
        if list(paths) == self.columns:
            return [list(row) for row in rows]
        places = [(self.columns.index(path), []) if path in self.columns else self._split_path(path) for path in paths]
        return [[_value_at(row[number], inner) for number, inner in places] for row in rows]

    def _split_path(self, path: str) -> tuple[int, list[str]]:
        column, *inner = path.split(".")
        return self.columns.index(column), inner


def _value_at(value: Any, path: Sequence[str]) -> Any:
    if path and isinstance(value, JsonText):
        return json_inside(value, path)
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


@asynccontextmanager
async def _postgres(
    source: TransferSource, chunk_size: int, context: ToolContext, duckdb: Duckdb
) -> AsyncIterator[SourceReader]:
    """Open a Postgres source. A cursor on the server sends one chunk of rows at a time."""
    del duckdb
    psycopg = library()
    query = str(source.query)
    connection = await connect(await conninfo("transfer: source", source, context))
    try:
        _read_json_as_text(psycopg, connection)
        await connection.execute(session_settings(source.schema, context.timeout_s) or "SELECT 1")
        served = await connection.execute("SELECT extract(epoch FROM pg_postmaster_start_time())::text")
        session = PostgresSession((await served.fetchone())[0], connection.info.backend_pid)
        async with connection.transaction(), connection.cursor(name="noetl_transfer") as cursor:
            await cursor.execute(query)
            described = cursor.description or ()

            async def fetch() -> Sequence[Row]:
                try:
                    rows: Sequence[Row] = await cursor.fetchmany(chunk_size)
                except psycopg.Error as error:
                    raise statement_failure(error, query) from error
                return rows

            types = {column.name: _duckdb_type(psycopg, column) for column in described}
            yield SourceReader([column.name for column in described], types, fetch, session=session)
    except psycopg.Error as error:
        raise statement_failure(error, query) from error
    finally:
        await connection.close()


def _read_json_as_text(psycopg: Any, connection: Any) -> None:
    class Raw(psycopg.types.string.TextLoader):  # type: ignore[misc]
        def load(self, data: Any) -> JsonText:
            text = super().load(data)
            return JsonText(text if isinstance(text, str) else text.decode())

    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, Raw)


def _duckdb_type(psycopg: Any, column: Any) -> str:
    known = psycopg.adapters.types.get(column.type_code)
    if known is None:
        return "VARCHAR"
    is_array = known.array_oid == column.type_code
    if known.name == "numeric":
        precision, scale = column.precision, column.scale or 0
        fits = precision is not None and 0 <= scale <= precision <= 38
        name = f"DECIMAL({precision},{scale})" if fits else "VARCHAR"
    else:
        name = _DUCKDB_TYPES.get(known.name, "VARCHAR")
    return f"{name}[]" if is_array else name


@asynccontextmanager
async def _duckdb(
    source: TransferSource, chunk_size: int, context: ToolContext, duckdb: Duckdb
) -> AsyncIterator[SourceReader]:
    query, database = str(source.query), MEMORY
    duckdb.check_files("transfer: source", query, context.settings)
    if source.database:
        database = canonical("transfer: source: 'database'", source.database, context.settings)
    opening = Opening(
        kind="transfer: source",
        database=database,
        read_only=database != MEMORY,
        secrets=tuple(await fetch_secrets("transfer: source", source.auth, context)),
    )
    async with duckdb.opened(opening, context.settings) as session:
        described = await session.select("source", query)
        types = [kind for _, kind in described]

        async def fetch() -> Sequence[Row]:
            return with_json(await session.fetch("source", chunk_size), types, JsonText)

        yield SourceReader([name for name, _ in described], dict(described), fetch)


@asynccontextmanager
async def _http(
    source: TransferSource, chunk_size: int, context: ToolContext, duckdb: Duckdb
) -> AsyncIterator[SourceReader]:
    del duckdb
    names = (*SENT_BY_HTTP, *sorted(RENDERED_BY_HTTP))
    config = {name: value for name in names if (value := getattr(source, name)) not in (None, {})}
    ready = [value for name, value in config.items() if name not in RENDERED_BY_HTTP]

    def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        """Render the templates in a value, except in data that was already rendered: `{{` in such data is no
        template."""
        return value if any(value is item for item in ready) else context.values.render(value, extra)

    result = await context.worker.run_tool("http", config, context.with_render(render))
    if context.stop.is_set():
        raise asyncio.CancelledError  # the answer came after the command was stopped
    if result.status is not ToolStatus.SUCCESS:
        failure = result.error
        text = failure.message if failure else "the request failed"
        kind, again = (failure.kind, failure.retryable) if failure else ("connection", False)
        raise ToolError(f"source: {text}", kind=kind, retryable=again)
    answer = fields_of(result.data)
    if answer.get("truncated"):
        # A part of the rows in the table would look like all of them.
        raise ToolError("source: the answer was cut; raise 'max_response_bytes'", kind="resource")
    payload = answer.get("data")  # this name is the same on both planes
    try:
        found = part_at(payload, source.data_path)
    except LookupError as missing:
        raise ToolError(
            f"source: Path segment {str(missing)!r} not found in JSON; correct 'data_path'", kind="schema"
        ) from None
    columns, rows = await off_loop(len(found) if isinstance(found, list) else 0, partial(_table, found))
    chunks = (rows[start : start + chunk_size] for start in range(0, len(rows), chunk_size))

    async def fetch() -> Sequence[Row]:
        return next(chunks, ())

    yield SourceReader(columns, {}, fetch, rows)


def without_rendering(context: ToolContext) -> ToolContext:
    """Return a tool context whose `render` returns each value unchanged. The caller uses this context if the whole
    `source` field was one template: `{{` in the rendered data is no template."""
    return context.with_render(lambda value, extra=None: value)


def _table(value: JsonValue) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of an HTTP answer, in the order in which the columns first appear. `value` is a list
    of objects, one for each row; a single object is one row."""
    objects = [value] if isinstance(value, Mapping) else value
    if not isinstance(objects, list):
        raise ToolError("source: HTTP response data must be an array or object; set 'data_path'", kind="schema")
    wrong = next((row for row in objects if not isinstance(row, Mapping)), None)
    if wrong is not None:
        text = f"source: Cannot determine columns from HTTP data: a row is {type(wrong).__name__}"
        raise ToolError(text, kind="schema")
    columns = list(dict.fromkeys(str(name) for row in objects if isinstance(row, Mapping) for name in row))
    if len(columns) > _MOST_COLUMNS or len(objects) * len(columns) > _MOST_VALUES:
        text = f"source: HTTP data with {len(objects):,} rows and {len(columns):,} names of columns is too much: "
        text += f"at most {_MOST_COLUMNS:,} columns, and {_MOST_VALUES:,} values, missing values included"
        raise ToolError(text, kind="resource")
    if objects and not columns:
        raise ToolError("source: Cannot determine columns from HTTP data: its rows have no fields", kind="schema")
    return columns, [[row.get(name) for name in columns] for row in objects if isinstance(row, Mapping)]


@asynccontextmanager
async def _snowflake(
    source: TransferSource, chunk_size: int, context: ToolContext, duckdb: Duckdb
) -> AsyncIterator[SourceReader]:
    del duckdb
    settings = await snowflake.connection_settings("transfer: source", source, context)
    async with snowflake.session(settings) as session:
        cursor, described = await session.query(str(source.query))

        async def fetch() -> Sequence[Row]:
            return await session.fetch(cursor, chunk_size)

        types = {column.name: snowflake.duckdb_type(column) for column in described}
        yield SourceReader([column.name for column in described], types, fetch)


READERS: Final = {"postgres": _postgres, "duckdb": _duckdb, "http": _http, "snowflake": _snowflake}
"""Type of a source -> function that returns the context manager of the opened source."""
