"""The address of a Postgres server, made from a playbook's fields and a credential, as one conninfo text.

The text holds the password. So a pool uses only a hash of the text as its key, and no message contains the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from noetl_worker.engine.short_keys import ByShortKey
from noetl_worker.errors import ConfigurationError
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.tools import file_roots, requirements
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.credential import DATABASE_FIELDS, credential_data, first_given, given_values, written_data
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.process.own_logins import NO_FILE

_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": 10,
    "application_name": "noetl-worker",
    "client_encoding": "UTF8",
    # A server whose host vanished never answers: this is noticed after a minute instead of two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""Default settings of a connection; times in seconds. A setting in `connection_string` wins over its default."""
_ADDRESS_DEFAULTS: Final[Mapping[str, Any]] = {"user": "postgres", "dbname": "postgres"}
"""Default role and database without a `connection_string`. libpq's own default for both is the system user's name."""
_FIELDS: Final = {**DATABASE_FIELDS, "sslmode": ("sslmode", "db_sslmode")}
_ADDRESS_FIELDS: Final = ("connection_string", "db_conn_string", "dsn", "url")
_NOT_GIVEN: Final[Mapping[str, str]] = {"password": "", "passfile": NO_FILE, "sslcert": NO_FILE, "sslkey": NO_FILE}
"""Values for login settings that the playbook does not give. Without these values libpq would read the worker's own
login (PGPASSWORD, PGPASSFILE, PGSSLCERT, PGSSLKEY, `~/.pgpass` and `~/.postgresql`). libpq would send this login to any
server that a playbook names."""
_FILES: Final = ("passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert")
"""libpq settings that name files. libpq opens these files on the event loop, so a named pipe would block all
commands."""
_PUBLIC: Final = ("sslrootcert", "system")
"""The only value of a `_FILES` setting that is not a file name: `sslrootcert=system` stands for the certificate
authorities that the machine trusts."""
_READS_LOGIN: Final = "it reads a login from a file of the worker's machine: give host, user and password"
_REFUSED: Final[Mapping[str, str]] = {
    "service": _READS_LOGIN,
    "servicefile": _READS_LOGIN,
    "sslcrldir": "it reads a directory of the worker's machine: give the list as 'sslcrl'",
    "sslkeylogfile": "it writes to a file of the worker's machine: leave it out",
}
_NO_CONNECTION: Final = "no connection; give 'auth', 'host' or 'connection_string'"
_NO_PARSE: Final = (
    "the connection string does not parse: give postgresql://USER:PASSWORD@HOST:5432/DATABASE "
    "(%-encoded where a part holds : / @ # or %), or key=value pairs"
)


_SCHEMA: Final = re.compile(r'"((?:[^"]|"")+)"|([^\W\d][\w$]*)')
_SCHEMAS: Final = re.compile(rf"(?:\s*(?:{_SCHEMA.pattern})\s*,)*\s*(?:{_SCHEMA.pattern})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLogin:
    """Config fields that name a Postgres server and the login there. Kinds `postgres` and `transfer` have these
    fields."""

    auth: str | dict[str, Any] | None = field(default=None, repr=False)
    """Alias of a credential of type postgres, or an object with the credential's data."""
    connection_string: str | None = field(default=None, repr=False)
    """`postgresql://USER:PASSWORD@HOST:5432/DATABASE` or `key=value` pairs; wins over the credential."""
    host: str | None = None
    """Host name or address, or the directory of a Unix socket. As with the other connection fields, the value here wins
    over the credential's value."""
    port: int | None = None
    """Port; absent: 5432."""
    user: str | None = None
    """Role; absent: postgres, or with a `connection_string` the worker process's user name."""
    password: str | None = field(default=None, repr=False)
    """Password, better kept in a credential."""
    database: str | None = None
    """Database; absent: postgres, or with a `connection_string` the user's name."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """TLS mode; absent: prefer."""
    schema: str | None = None
    """`search_path` of this command: a schema, or several separated by commas. As in SQL, `Sales` is the schema sales,
    and `"Sales"` keeps the capital."""


def check_connection(fields: PostgresLogin) -> None:
    """Check the config fields of a Postgres login (address, port, schema), before any credential is fetched.

    Raises:
        ConfigurationError: a field is malformed, or no field names a server.
    """
    written = written_data(fields.auth)
    check_numbers(1, 65535, port=fields.port)
    if fields.schema and "," in fields.schema and _SCHEMAS.fullmatch(fields.schema) is None:
        raise ConfigurationError(
            f"'schema' {fields.schema!r} is no list of schema names: separate the names with commas, and put a name "
            "in double quotes where SQL needs them",
            field="schema",
        )
    if written is not None:
        address = fields.connection_string or first_given(written, _ADDRESS_FIELDS)
        if not address and not fields.host and not first_given(written, _FIELDS["host"]):
            raise ConfigurationError(_NO_CONNECTION, field="auth")
    if fields.connection_string and not _parses(fields.connection_string):
        raise ConfigurationError(_NO_PARSE, field="connection_string")


def parse_schemas(text: str) -> list[str]:
    """Return the schema names in the config field `schema`. As in SQL, capitals count only in double quotes (seen live:
    pg-schema).

    A text that is not SQL, such as a name with a blank, is returned unchanged as one name.
    """
    if _SCHEMAS.fullmatch(text) is None:
        return [text]
    found = _SCHEMA.findall(text)
    return [quoted.replace('""', '"') if quoted else bare.encode().lower().decode() for quoted, bare in found]


def _can_parse(address: str) -> bool:
    """Return True if libpq can parse the address. Without libpq also return True: the step then reports the missing
    library.

    Cached, because parsing takes 0.1 ms.
    """
    try:
        psycopg = library()
    except ConfigurationError:
        return True
    try:
        psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        return False
    return True


_parses: Final = ByShortKey(_can_parse, most=64).__getitem__


async def conninfo(kind: str, fields: PostgresLogin, context: ToolContext) -> str:
    """Return the address in libpq's syntax (conninfo). `kind` names the tool in messages.

    A field of the playbook wins over `connection_string`, and `connection_string` wins over the credential. Values are
    quoted, so a password may have @, / or #.

    Raises:
        ConfigurationError: there is no address, or libpq cannot parse the address. The error leaves out the address,
            because the address has the password.
        CredentialError: the credential's alias does not resolve.
    """
    psycopg = library()
    found = await credential_data(kind, fields.auth, context)
    address = fields.connection_string or first_given(found, _ADDRESS_FIELDS)
    values = given_values(fields, {} if fields.connection_string else found, _FIELDS)
    given = {"dbname" if name == "database" else name: value for name, value in values.items()}
    if not address and "host" not in given:
        raise ConfigurationError(f"{kind}: {_NO_CONNECTION}")
    try:
        assembled, password, files = _assembled((str(address or ""), tuple(given.items())))
    except psycopg.Error:
        raise ConfigurationError(f"{kind}: {_NO_PARSE}") from None
    if files:
        await finished_off_loop(lambda: _check_files(kind, files, context.settings))
    if password:
        context.secrets.keep(password)
    return assembled


def _assemble(fields: tuple[str, tuple[tuple[str, Any], ...]]) -> tuple[str, str, tuple[str, ...]]:
    """Return the conninfo (libpq's connection string) for an address and its settings. Also return the conninfo's
    password and the files that the conninfo names. Cached: libpq's parser takes 0.1 ms, twice a small query's time.

    Raises:
        ConfigurationError: the address has a setting that playbooks may not use.
    """
    address, given = fields
    parts = {**({} if address else _ADDRESS_DEFAULTS), **library().conninfo.conninfo_to_dict(address), **dict(given)}
    for name, reason in _REFUSED.items():
        if parts.get(name):
            raise ConfigurationError(f"postgres: {name!r} is not for playbooks: {reason}")
    if ":" in (parts.get("sslkey") or ""):  # ENGINE:KEY, and OpenSSL loads an engine from any path
        raise ConfigurationError("postgres: 'sslkey' must name a file, not an OpenSSL engine: give a path without ':'")
    files = tuple(parts[name] for name in _FILES if parts.get(name) and (name, parts[name]) != _PUBLIC)
    parts |= {name: parts.get(name) or instead for name, instead in _NOT_GIVEN.items()}
    return str(library().conninfo.make_conninfo(**{**_DEFAULTS, **parts})), str(parts["password"]), files


def _check_files(kind: str, files: tuple[str, ...], settings: ToolSettings) -> None:
    """Raise ConfigurationError for a file that a playbook may not name, or that is not a regular file."""
    for file in files:
        real = file_roots.checked(kind, file, Path(file), settings)
        if real.exists() and not real.is_file():
            raise ConfigurationError(f"{kind}: {file!r} is no regular file: name one")


_assembled: Final = ByShortKey(_assemble, most=64).__getitem__


def library() -> Any:
    """Return the library psycopg. Raises ConfigurationError if it is not installed."""
    return requirements.library("psycopg", "postgres")
