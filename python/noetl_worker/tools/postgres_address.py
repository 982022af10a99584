"""From a playbook's fields and a credential to the address of a Postgres: one conninfo text.

It holds the password: it is a pool's key only as a hash, and never part of a message.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, Protocol

from noetl_worker.errors import ConfigurationError
from noetl_worker.models import JsonValue
from noetl_worker.tools.contract import ToolContext

__all__ = ["PostgresFields", "conninfo", "credential_data", "library"]

_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": 10,
    "application_name": "noetl-worker",
    "client_encoding": "UTF8",
    # A server whose host vanished answers nothing: noticed after a minute instead of two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""What a connection has unless its `connection_string` says otherwise; seconds."""
_CREDENTIAL_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("db_host", "host", "hostname"),
    "port": ("db_port", "port"),
    "user": ("db_user", "user", "username"),
    "password": ("db_password", "password"),
    "dbname": ("db_name", "database", "dbname", "db"),
    "sslmode": ("sslmode", "db_sslmode"),
}
_SEVERAL: Final = "auth holds several credentials; name the one to use: auth: <alias>"


class PostgresFields(Protocol):
    """The connection fields of a config model, one spelling each."""

    @property
    def auth(self) -> str | dict[str, Any] | None: ...
    @property
    def connection_string(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def database(self) -> str | None: ...
    @property
    def sslmode(self) -> str | None: ...


async def conninfo(kind: str, fields: PostgresFields, context: ToolContext) -> str:
    """The address as libpq reads it; `kind` names the tool in messages.

    A field written in the playbook wins over the credential's, `connection_string` over both. Values are quoted: a
    password with @, / or # is only a password.

    Raises:
        ConfigurationError: no address at all, or one that does not parse (without the text: it has the password).
        CredentialError: the alias does not resolve.
    """
    psycopg = library()
    found = await credential_data(kind, fields.auth, context)
    address = fields.connection_string or _in_credential(found, ("connection_string", "db_conn_string", "dsn", "url"))
    own = {"host": fields.host, "port": fields.port, "user": fields.user, "password": fields.password}
    own.update(dbname=fields.database, sslmode=fields.sslmode)
    given: dict[str, Any] = {}
    for name, spellings in _CREDENTIAL_FIELDS.items():
        value = own[name]
        if value is None and not fields.connection_string:
            value = _in_credential(found, spellings)
        if value is not None:
            given[name] = value
    if not address and "host" not in given:
        raise ConfigurationError(f"{kind}: no connection; give 'auth', 'host' or 'connection_string'")
    try:
        whole, password = _assembled(str(address or ""), tuple(given.items()))
    except psycopg.Error:
        raise ConfigurationError(
            f"{kind}: the connection string does not parse: give postgresql://USER:PASSWORD@HOST:5432/DATABASE "
            "(%-encoded where a part holds : / @ # or %), or key=value pairs"
        ) from None
    if password:
        context.keep_secret(password)
    return whole


@functools.lru_cache(maxsize=64)
def _assembled(address: str, given: tuple[tuple[str, Any], ...]) -> tuple[str, str]:
    """The whole conninfo and its password; libpq's parser takes 0.1 ms, twice what a small query does."""
    parts = {**library().conninfo.conninfo_to_dict(address), **dict(given)}
    return str(library().conninfo.make_conninfo(**{**_DEFAULTS, **parts})), str(parts.get("password") or "")


def _in_credential(found: Mapping[str, JsonValue], spellings: tuple[str, ...]) -> Any:
    return next((found[key] for key in spellings if found.get(key) not in (None, "")), None)


async def credential_data(kind: str, auth: str | Mapping[str, Any] | None, context: ToolContext) -> dict[str, Any]:
    """The data of `auth`: an alias; an object that names one (tools.md 4.5); or the data itself.

    {"credential": alias, ...} and {"source": "credential", "key": alias, ...}: the other fields win over the
    credential's. {"anything": {...}} with one entry is that entry.
    """
    if auth is None:
        return {}
    if isinstance(auth, str):
        return dict(await context.credential(auth))
    nested = [value for value in auth.values() if isinstance(value, Mapping)]
    if nested and len(nested) == len(auth):
        if len(nested) > 1:
            raise ConfigurationError(f"{kind}: {_SEVERAL}")
        return await credential_data(kind, nested[0], context)
    alias = auth.get("credential") or (auth.get("key") if auth.get("source") == "credential" else None)
    if not alias:
        return dict(auth)
    rest = {name: value for name, value in auth.items() if name not in ("credential", "source", "key")}
    return {**await context.credential(str(alias)), **rest}


def library() -> Any:
    """psycopg; ConfigurationError names the extra that has it."""
    try:
        import psycopg
        import psycopg.conninfo
        import psycopg.sql
    except ImportError as error:
        raise ConfigurationError("psycopg is not installed: pip install 'noetl-worker[postgres]'") from error
    return psycopg
