"""Kind `postgres`: SQL through psycopg 3 (tools.md 2.6).

A connection per command: a session's settings, temporary tables and locks never reach the next one. Statements of
one text run in one implicit transaction, as the server has it for a simple query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import JsonValue, ToolResult
from noetl_worker.tools import sql
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left

__all__ = ["PostgresConfig", "PostgresTool"]

_CONNECT_S: Final = 10
_CREDENTIAL_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("db_host", "host", "hostname"),
    "port": ("db_port", "port"),
    "user": ("db_user", "user", "username"),
    "password": ("db_password", "password"),
    "dbname": ("db_name", "database", "dbname", "db"),
    "sslmode": ("sslmode",),
}
_KINDS: Final = (
    ("08", "connection", True),
    ("28", "auth", False),
    ("40", "db_transaction", True),
    ("53", "db_resources", True),
    ("57014", "timeout", True),
    ("57P", "connection", True),
    ("23", "db_constraint", False),
    ("42", "db_syntax", False),
)
"""SQLSTATE prefix -> (kind, whether the same statement may succeed later)."""


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """`auth` names a credential; fields written in the playbook win over it, `connection_string` over everything.

    `params` fill `$1, $2` or `%s` place holders (then one statement only); the driver and the server find the types.
    """

    query: str | list[str]
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    auth: str | dict[str, Any] | None = None
    connection_string: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    sslmode: str | None = None
    schema: str | None = None
    as_objects: bool = True
    max_rows: int = sql.MAX_ROWS
    timeout: float | None = None


class PostgresTool:
    kind: ClassVar[str] = "postgres"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = PostgresConfig
    field_aliases: ClassVar[Mapping[str, str]] = {
        "db_host": "host",
        "db_port": "port",
        "db_user": "user",
        "db_password": "password",
        "db_name": "database",
        "db_conn_string": "connection_string",
        "dsn": "connection_string",
        "username": "user",
    }
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    async def run(self, config: PostgresConfig, context: ToolContext) -> ToolResult:
        psycopg = _library()
        text = sql.script_of(config.query)
        if not text.strip():
            raise ConfigurationError("postgres: 'query' has no statement")
        conninfo = await _conninfo(psycopg, config, context)
        timeout_s = time_left(config.timeout, context)
        try:
            # A cancelled task makes psycopg cancel the statement on the server before it lets go.
            data = await asyncio.wait_for(_run(psycopg, conninfo, text, config), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            return ToolResult.timed_out(timeout_s or 0.0)
        return ToolResult.success(data)


async def _run(psycopg: Any, conninfo: str, text: str, config: PostgresConfig) -> dict[str, JsonValue]:
    try:
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        kind = "auth" if "authentication failed" in str(error) else "connection"
        raise ToolError(f"cannot connect: {error}", kind=kind, retryable=kind == "connection") from error
    async with connection:
        try:
            if config.schema:
                name = psycopg.sql.Identifier(config.schema)
                await connection.execute(psycopg.sql.SQL("SET search_path TO {}").format(name))
            return await _execute(psycopg, connection, text, config)
        except psycopg.Error as error:
            raise _failure(error, text) from error


async def _execute(psycopg: Any, connection: Any, text: str, config: PostgresConfig) -> dict[str, JsonValue]:
    batch = sql.Batch(config.as_objects, config.max_rows)
    numbered = isinstance(config.params, list) and "$1" in text
    cursor = psycopg.AsyncRawCursor(connection) if numbered else connection.cursor()
    async with cursor:
        await cursor.execute(text, config.params or None)
        while True:
            await _keep(batch, cursor)
            if not cursor.nextset():
                return batch.data()


async def _keep(batch: sql.Batch, cursor: Any) -> None:
    command = str(cursor.statusmessage)
    if cursor.description is not None:
        batch.returned(
            command, [column.name for column in cursor.description], await cursor.fetchmany(batch.max_rows + 1)
        )
        if not command.startswith(("SELECT", "SHOW")):
            batch.statements[-1]["affected_rows"] = cursor.rowcount
    else:
        batch.changed(command, cursor.rowcount if cursor.rowcount >= 0 else None)


def _failure(error: Any, text: str) -> ToolError:
    """Message, SQLSTATE, detail and hint of the server; the kind from the SQLSTATE (tools.md 8, trap 7)."""
    state = error.sqlstate or ""
    parts = [f"{error.diag.message_primary or error} (SQLSTATE {state})" if state else str(error)]
    if error.diag.message_detail:
        parts.append(f"DETAIL: {error.diag.message_detail}")
    if error.diag.message_hint:
        parts.append(f"HINT: {error.diag.message_hint}")
    kind, retryable = next(
        ((kind, again) for prefix, kind, again in _KINDS if state.startswith(prefix)), ("db_error", False)
    )
    if not state:
        kind, retryable = "connection", True
    return ToolError(f"{sql.preview(text)}: {' | '.join(parts)}", kind=kind, retryable=retryable, code=state or None)


async def _conninfo(psycopg: Any, config: PostgresConfig, context: ToolContext) -> str:
    found = await _credential(config.auth, context)
    address = config.connection_string or next(
        (str(found[name]) for name in ("connection_string", "dsn", "url") if found.get(name)), ""
    )
    own = {"host": config.host, "port": config.port, "user": config.user, "password": config.password}
    own.update(dbname=config.database, sslmode=config.sslmode)
    given: dict[str, Any] = {}
    for name, spellings in _CREDENTIAL_FIELDS.items():
        from_credential = next((found[key] for key in spellings if found.get(key) not in (None, "")), None)
        value = own[name] if own[name] is not None else (None if config.connection_string else from_credential)
        if value is not None:
            given[name] = value
    if not address and "host" not in given:
        raise ConfigurationError("postgres: no connection; give 'auth', 'host' or 'connection_string'")
    try:
        # make_conninfo quotes: a password with @, / or # is only a password
        return str(
            psycopg.conninfo.make_conninfo(
                address, connect_timeout=_CONNECT_S, application_name="noetl-worker", **given
            )
        )
    except psycopg.Error as error:
        raise ConfigurationError(f"postgres: the connection settings do not parse: {error}") from error


async def _credential(auth: str | Mapping[str, Any] | None, context: ToolContext) -> Mapping[str, JsonValue]:
    """The credential's data; an object is taken as the data, unless it names an alias."""
    if auth is None:
        return {}
    if isinstance(auth, str):
        return await context.credential(auth)
    alias = auth.get("credential") or (auth.get("key") if auth.get("source") == "credential" else None)
    return {**await context.credential(str(alias)), **auth} if alias else auth


def _library() -> Any:
    try:
        import psycopg
        import psycopg.conninfo
        import psycopg.sql
    except ImportError as error:
        raise ConfigurationError("psycopg is not installed: pip install 'noetl-worker[postgres]'") from error
    return psycopg
