"""Kind `snowflake`: runs SQL in Snowflake through Snowflake's connector for Python."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from noetl_worker.errors import ConfigurationError, DocumentError, ResourceShortage, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.text.json_text import memory_of
from noetl_worker.tools import requirements
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.credential import credential_data, given_values, written_data
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.process.shortage import (
    before_any_effect,
    is_out_of_descriptors,
    is_shortage,
    is_shortage_text,
    started,
)
from noetl_worker.tools.sql import split as sql_split
from noetl_worker.tools.sql import sql

T = TypeVar("T")

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "account": ("sf_account", "account"),
    "user": ("sf_user", "user", "username"),
    "password": ("sf_password", "password"),
    "private_key": ("sf_private_key", "private_key"),
    "private_key_passphrase": ("sf_private_key_passphrase", "private_key_passphrase"),
    "token": ("sf_token", "token"),
    "authenticator": ("sf_authenticator", "authenticator"),
    "warehouse": ("sf_warehouse", "warehouse"),
    "database": ("sf_database", "database"),
    "schema": ("sf_schema", "schema"),
    "role": ("sf_role", "role"),
}
_DEFAULTS: Final = {"warehouse": "COMPUTE_WH", "schema": "PUBLIC"}
_TIMEOUTS: Final = frozenset({604, 630})
"""Error numbers of a statement that Snowflake ended after its timeout."""
_FIXED, _REAL, _DATE, _TIME, _BOOLEAN, _BINARY = 0, 1, 3, 12, 13, 11
_JSON: Final = frozenset({5, 9, 10, 14, 15})
_NAMES: Final[Mapping[int, str]] = {
    _REAL: "DOUBLE",
    _DATE: "DATE",
    4: "TIMESTAMP",
    6: "TIMESTAMP WITH TIME ZONE",
    7: "TIMESTAMP WITH TIME ZONE",
    8: "TIMESTAMP",
    _BINARY: "BLOB",
    _TIME: "TIME",
    _BOOLEAN: "BOOLEAN",
    **dict.fromkeys(_JSON, "JSON"),
}
_CHANGING: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_READING: Final = frozenset({"SELECT", "WITH", "VALUES", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "LIST", "LS", "USE"})
"""First words of statements that change no data. If a command has only such statements, the worker does not check for
an open transaction, because no change could be lost."""
_COMMENT: Final = re.compile(r"\s*(?:/\*.*?\*/|--[^\n]*)", re.DOTALL)
_STOP_S: Final = 5.0
_ROWS_AT_ONCE: Final = 1_000
_VALUE_BYTES: Final = 64
"""Approximate memory of the Python object for one value of a row, in bytes. The value's text is counted separately."""
_MOST_BYTES: Final = 256 << 20
"""Maximum bytes of memory for the rows of one `fetch`."""


@dataclass(frozen=True, slots=True)
class SnowflakeConfig(sql.SqlFields):
    """Run SQL in Snowflake. Data, with the last statement's result: {columns, rows, row_count, affected_rows,
    statements, statement_count}, and `truncated: true` when rows were left out.

    One session runs all statements, so USE and ALTER SESSION hold for later statements. Each statement is a transaction
    of its own unless the text has BEGIN and COMMIT. The first statement that fails ends the command; a text that leaves
    a transaction open fails. NUMBER with decimals is exact text, VARIANT, OBJECT and ARRAY are JSON, dates and times
    are ISO 8601, BINARY is base64. Each command signs in anew. A timeout ends the statement in Snowflake, too.

    differs-from-upstream: both published workers answer {statement_0: ..., statement_1: ...} and continue after a
    failure.
    """

    query: str | list[str] | None = None
    """SQL text of one or more statements, or a list of such texts. Snowflake's connector splits a text into its
    statements."""
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    """Values for the placeholders of the last statement: a list for `%s`, an object for `%(name)s`."""
    auth: str | dict[str, Any] | None = field(default=None, repr=False)
    """Alias of a credential of type snowflake, or an object with the credential's data. The step's own fields win over
    the credential."""
    account: str | None = None
    """Account identifier, `ORG-ACCOUNT`. Required, here or in the credential."""
    user: str | None = None
    """User name. Required, here or in the credential."""
    password: str | None = field(default=None, repr=False)
    """Password, better kept in a credential."""
    private_key: str | None = field(default=None, repr=False)
    """Private key (PEM) for key-pair authentication, instead of a password."""
    private_key_passphrase: str | None = field(default=None, repr=False)
    """Passphrase of an encrypted `private_key`."""
    token: str | None = field(default=None, repr=False)
    """OAuth or programmatic access token, with `authenticator`."""
    authenticator: str | None = None
    """Method to sign in, as the connector names it (oauth, programmatic_access_token, ...); absent: password or key
    pair."""
    warehouse: str | None = None
    """Warehouse; absent: COMPUTE_WH."""
    database: str | None = None
    """Name of the database to use."""
    schema: str | None = None
    """Name of the schema to use; absent: PUBLIC."""
    role: str | None = None
    """Name of the role to use; absent: the user's default role."""

    def __post_init__(self) -> None:
        sql.sql_text(self.query, self.query_b64)
        check_numbers(1, max_rows=self.max_rows)
        check_connection(self)


class SnowflakeTool:
    """Tool of kind `snowflake`. Each command has its own session, in its own thread. A cancelled command closes its
    session, and closing the session ends the running statement."""

    kind: ClassVar[str] = "snowflake"
    config_model: ClassVar[type] = SnowflakeConfig
    field_aliases: ClassVar[Mapping[str, str]] = {**sql.SPELLINGS, "username": "user"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"query_b64"})
    requires: ClassVar[Mapping[str, str]] = {"snowflake.connector": "noetl-worker[snowflake]"}
    imports: ClassVar[tuple[str, ...]] = ("snowflake.connector",)

    async def run(self, config: SnowflakeConfig, context: ToolContext) -> ToolResult:
        settings = await connection_settings(self.kind, config, context, context.timeout_s)
        try:
            return await in_time(self._run(config, settings), context.timeout_s)
        except ToolError as error:
            if error.kind == "timeout":
                return ToolResult.timed_out(context.timeout_s or 0.0)
            raise

    async def _run(self, config: SnowflakeConfig, settings: dict[str, Any]) -> dict[str, JsonValue]:
        text = sql.sql_text(config.query, config.query_b64)
        batch = sql.Batch(config.as_objects, config.max_rows)
        async with session(settings) as opened:
            statements = await off_loop(len(text), partial(opened.statements, text))
            for number, statement in enumerate(statements, start=1):
                params = config.params if number == len(statements) else None
                cursor, described = await opened.query(statement, params or None)
                names = [column.name for column in described]
                shown = sql.preview(statement)
                if names and not _counts(statement, names):
                    rows = await opened.fetch(cursor, config.max_rows + 1)
                    values = len(rows) * len(names)
                    await off_loop(values * _VALUE_BYTES, partial(batch.returned, shown, names, rows))
                else:
                    batch.changed(shown, cursor.rowcount)
            if not all(sql_split.first_word(statement) in _READING for statement in statements):
                await _check_ended(opened, text)
        return batch.data()


async def _check_ended(opened: SnowflakeSession, text: str) -> None:
    """Raise ToolError if a transaction is still open (by BEGIN, or with AUTOCOMMIT off), because closing the session
    would roll the transaction back."""
    cursor, _ = await opened.query("SELECT CURRENT_TRANSACTION()")
    [[transaction]] = await opened.fetch(cursor, 1)
    if transaction is not None:
        raise sql.left_open(text)


def _counts(statement: str, names: Sequence[str]) -> bool:
    """Return True if the statement changes rows, and the columns of its result are only Snowflake's counts of changed
    rows, such as `number of rows inserted`."""
    return sql_split.first_word(statement) in _CHANGING and all(name.lower().startswith("number of ") for name in names)


def _without_files(statement: str) -> str:
    """Return the statement without its leading comments, and refuse PUT and GET. Comments are removed because a
    parameter's value in a comment could end the comment and inject SQL.

    Raises:
        ConfigurationError: the statement is PUT or GET. For PUT and GET the connector would open any file that the
            server names.
    """
    begin = 0
    while (match := _COMMENT.match(statement, begin)) is not None:
        begin = match.end()
    text = statement[begin:].lstrip()
    if text[:3].upper() in ("PUT", "GET"):
        raise ConfigurationError(
            "snowflake: PUT and GET open files of the worker's machine, which are not for playbooks: use an "
            "external stage, or INSERT (kind transfer)"
        )
    return text


def check_connection(fields: Any) -> None:
    """Check the fields of a connection when the config is made, before any credential is fetched.

    Raises:
        ConfigurationError: the account, the user or a secret is missing, and no credential can add the missing field.
    """
    written = written_data(fields.auth)
    if written is not None:
        _own_settings(fields, written)


async def connection_settings(
    kind: str, fields: Any, context: ToolContext, timeout_s: float | None = None
) -> dict[str, Any]:
    """Return the arguments of the connector's `connect`. `fields` has `auth` and some or all of the connection fields.

    Raises:
        ConfigurationError: the account, the user or a secret is missing, or the private key cannot be read.
    """
    found = await credential_data(kind, fields.auth, context)
    try:
        settings: dict[str, Any] = dict(_own_settings(fields, found))
    except ConfigurationError as error:
        raise error.in_tool(kind) from None
    for secret in (*_given_secrets(settings), settings.get("private_key_passphrase", "")):
        context.secrets.keep(secret)
    if "private_key" in settings:
        settings["private_key"] = _der(kind, settings["private_key"], settings.pop("private_key_passphrase", None))
    parameters: dict[str, Any] = {"ABORT_DETACHED_QUERY": True, "QUERY_TAG": "noetl-worker"}
    if timeout_s is not None:
        parameters["STATEMENT_TIMEOUT_IN_SECONDS"] = max(1, round(timeout_s))
    return {**settings, "application": "noetl_worker", "session_parameters": parameters, "login_timeout": 60}


def _own_settings(fields: Any, found: Mapping[str, Any]) -> dict[str, str]:
    """Return the connector's settings, merged from the step's `fields` and the credential `found`. Raises
    ConfigurationError if a required setting is missing."""
    settings = {name: str(value) for name, value in {**_DEFAULTS, **given_values(fields, found, _FIELDS)}.items()}
    for name in ("account", "user"):
        if name not in settings:
            raise ConfigurationError(f"no {name!r}; give it, or 'auth' with a credential of type snowflake", field=name)
    if not _given_secrets(settings) and "authenticator" not in settings:
        problem = "Password is required for Snowflake authentication; give 'password' or 'private_key'"
        raise ConfigurationError(problem, field="password")
    return settings


def _given_secrets(settings: Mapping[str, str]) -> list[str]:
    return [settings[name] for name in ("password", "private_key", "token") if name in settings]


def _der(kind: str, pem: str, passphrase: str | None) -> bytes:
    library()
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
    except (ValueError, TypeError):
        # The cause's text is left out: it may contain parts of the key.
        text = f"{kind}: 'private_key' is no PEM key, or its passphrase is wrong: give the whole PEM text"
        raise ConfigurationError(text) from None
    form = serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption()))


@asynccontextmanager
async def session(settings: Mapping[str, Any]) -> AsyncIterator[SnowflakeSession]:
    """Provide a signed-in session, and close it at the end.

    Raises:
        ResourceShortage: this machine is out of threads or file descriptors.
    """
    opened = SnowflakeSession(library())
    try:
        with before_any_effect("to open a session"):
            await opened.open(settings)
        yield opened
    finally:
        await opened.close()


class SnowflakeSession:
    """A Snowflake session. All its calls run in a thread of its own, because Snowflake's connector blocks."""

    def __init__(self, connector: Any) -> None:
        self._connector = connector
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snowflake")

    async def open(self, settings: Mapping[str, Any]) -> None:
        """Sign in to Snowflake.

        Raises:
            ResourceShortage: this machine is out of file descriptors or threads.
            ToolError: Snowflake refused the login (kind auth), or no connection (kind connection, retryable).
        """
        if is_out_of_descriptors():  # the connector would retry until its timeout, and then hide the cause
            raise ResourceShortage("no file descriptor is free for a connection")

        def connect() -> None:
            self._connection = self._connector.connect(**settings)

        try:
            await self._do(connect)
        except self._connector.errors.Error as error:
            is_refused = isinstance(error, self._connector.errors.DatabaseError) and not isinstance(
                error, self._connector.errors.OperationalError
            )
            text = f"cannot connect: {error}"
            if is_shortage(error) or is_shortage_text(text) or is_out_of_descriptors():  # the connector may not say
                raise ResourceShortage(text) from error
            raise ToolError(text, kind="auth" if is_refused else "connection", retryable=not is_refused) from error

    def statements(self, text: str) -> list[str]:
        """Return the single statements of an SQL text, split by Snowflake's connector."""
        from snowflake.connector.util_text import split_statements

        found = [statement.strip() for statement, _ in split_statements(io.StringIO(text))]
        return [statement for statement in found if statement] or [text]

    async def query(self, statement: str, params: Any = None) -> tuple[Any, Sequence[Any]]:
        """Run one statement. Return the cursor, and the description of the columns. Raises ConfigurationError for PUT
        and GET."""
        text = _without_files(statement)

        def run() -> tuple[Any, Sequence[Any]]:
            cursor = self._connection.cursor()
            cursor.execute(text if params else statement, params)
            return cursor, cursor.description or ()

        return await self._statement(statement, run)

    async def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an INSERT for every row. The connector sends the rows together."""
        await self._statement(statement, lambda: self._connection.cursor().executemany(statement, rows))

    async def fetch(self, cursor: Any, size: int) -> list[list[Any]]:
        """Return at most `size` further rows. VARIANT, OBJECT and ARRAY are parsed as JSON; a text that is not
        JSON stays text.

        Raises:
            ToolError: kind `resource`, the rows take more than 256 MiB.
        """
        return await self._do(partial(_fetch_rows, cursor, size))

    async def close(self) -> None:
        """End the session. A statement that still runs ends with the session."""
        connection, self._connection = self._connection, None
        if connection is None:
            with suppress(ResourceShortage):  # without a thread nobody has signed in
                started(self._thread, self._close_late)  # cancelled during the login: the thread closes the connection
        else:
            # In a thread of its own: a statement may block the session's thread, and closing may never end.
            other = ThreadPoolExecutor(1, thread_name_prefix="snowflake-end")
            try:
                closing = asyncio.wrap_future(started(other, connection.close))
            except ResourceShortage:  # no second thread: close it in the session's own
                closing = asyncio.wrap_future(started(self._thread, connection.close))
            other.shutdown(wait=False)
            closing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # no warning of asyncio
            await asyncio.wait({closing}, timeout=_STOP_S)
        self._thread.shutdown(wait=False)

    def _close_late(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _statement(self, statement: str, call: Callable[[], T]) -> T:
        try:
            return await self._do(call)
        except self._connector.errors.Error as error:
            raise _failure(self._connector, error, statement) from error

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(started(self._thread, call))


def _json_memory(text: str) -> int:
    try:
        return memory_of(text)
    except DocumentError:  # larger than any document may be
        return _MOST_BYTES + 1


def _fetch_rows(cursor: Any, size: int) -> list[list[Any]]:
    """Return at most `size` rows. Raises ToolError if the rows take more memory than `_MOST_BYTES`."""
    json_columns = [number for number, column in enumerate(cursor.description) if column.type_code in _JSON]
    rows: list[list[Any]] = []
    left = _MOST_BYTES
    while len(rows) < size and (fetched := cursor.fetchmany(min(_ROWS_AT_ONCE, size - len(rows)))):
        for row in map(list, fetched):
            left -= sum(len(value) if isinstance(value, (str, bytes, bytearray)) else 0 for value in row)
            left -= len(row) * _VALUE_BYTES
            for number in json_columns:
                if isinstance(row[number], str):
                    left -= _json_memory(row[number])
            if left < 0:
                text = f"the rows take more than {_MOST_BYTES >> 20} MiB: select less, or give a smaller 'max_rows'"
                raise ToolError(text, kind="resource")
            for number in json_columns:
                with suppress(ValueError, RecursionError):  # NULL in an ARRAY is `undefined`
                    row[number] = json.loads(row[number]) if isinstance(row[number], str) else row[number]
            rows.append(row)
    return rows


def _failure(connector: Any, error: Any, statement: str) -> ToolError:
    state = str(getattr(error, "sqlstate", None) or "")
    kind, retryable = "db_error", False
    if getattr(error, "errno", None) in _TIMEOUTS:
        kind, retryable = "timeout", True
    elif state.startswith("23"):
        kind = "db_constraint"
    elif state.startswith("42") or state == "02000":
        kind = "db_syntax"
    elif isinstance(error, connector.errors.OperationalError):
        kind = "connection"
    query_id = getattr(error, "sfqid", None)
    where = f" (query {query_id})" if query_id else ""
    return ToolError(f"{sql.preview(statement)}: {error}{where}", kind=kind, retryable=retryable, code=state or None)


def duckdb_type(column: Any) -> str:
    """Return the DuckDB type for a result column, from the column's description by Snowflake's connector."""
    if column.type_code == _FIXED:
        return f"DECIMAL({column.precision or 38},{column.scale})" if column.scale else "BIGINT"
    return _NAMES.get(column.type_code, "VARCHAR")


def library() -> Any:
    """Import and return `snowflake.connector`. Raises ConfigurationError if this module is not installed."""
    return requirements.library("snowflake.connector", "snowflake")
