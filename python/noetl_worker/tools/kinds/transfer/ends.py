"""The config models for the source and the target of a transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools import fields
from noetl_worker.tools.http import auth as http_auth
from noetl_worker.tools.http.client import http_address
from noetl_worker.tools.kinds.duckdb.paths import MEMORY
from noetl_worker.tools.kinds.duckdb.secrets import check_secrets
from noetl_worker.tools.kinds.http import request as http_request
from noetl_worker.tools.kinds.http import retry as http_retry
from noetl_worker.tools.kinds.postgres.address import PostgresLogin, check_connection
from noetl_worker.tools.kinds.postgres.postgres import CONNECTION_SPELLINGS
from noetl_worker.tools.kinds.snowflake import snowflake

EndT = TypeVar("EndT")

_SPELLINGS: Final[Mapping[str, str]] = {
    **CONNECTION_SPELLINGS,
    "kind": "type",
    "tool": "type",
    "connection": "connection_string",
    "payload": "body",
    "db_path": "database",
}
_POSTGRES: Final = {"auth", "connection_string", "host", "port", "user", "password", "database", "sslmode", "schema"}
SENT_BY_HTTP: Final = ("url", "method", "params", "json", "form", "body", "auth", "max_response_bytes")
"""Fields of an http source that kind transfer renders before it passes them to kind http."""
RENDERED_BY_HTTP: Final = frozenset({"headers", "retry"})
"""Fields of an http source that kind http renders, because their templates use `response`, `error` or `token()`."""
_READ: Final[Mapping[str, frozenset[str]]] = {
    "source": frozenset({"type"}),
    "target": frozenset({"type", "table", "mapping", "key"}),
    "postgres": frozenset({*_POSTGRES, "query"}),
    "duckdb": frozenset({"query", "auth", "database", "connection_string"}),
    "snowflake": frozenset({"query", "auth", "account", "user", "password", "database", "schema", "warehouse", "role"}),
    "http": frozenset({*SENT_BY_HTTP, *RENDERED_BY_HTTP, "data_path"}),
}
"""Fields that are read for each type of source or target (such as `postgres`). The entries "source" and "target" have
the fields that are read for every type."""
_OTHER_TYPES: Final = {"postgresql": "postgres", "pg": "postgres"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _EndConnection(PostgresLogin):
    """Connection fields of a transfer's source or target. The Postgres fields also serve other types, as far as a type
    needs them; only Snowflake uses `account`, `warehouse` and `role`."""

    account: str | None = None
    """snowflake: account identifier, `ORG-ACCOUNT`."""
    warehouse: str | None = None
    """snowflake: name of the warehouse."""
    role: str | None = None
    """snowflake: name of the role."""


@dataclass(frozen=True, slots=True)
class TransferSource(_EndConnection):
    """Config fields of a transfer's source, from which the rows are read."""

    type: str
    """postgres, duckdb, snowflake or http."""
    query: str | None = None
    """postgres, duckdb, snowflake: one SELECT, which gives the rows."""
    url: str | None = None
    """http: address to request."""
    method: str = "GET"
    """http: method of the request."""
    headers: dict[str, Any] = field(default_factory=dict)
    """http: headers of the request."""
    params: dict[str, Any] = field(default_factory=dict)
    """http: query parameters of the request."""
    json: Any = None
    """http: body of the request, as JSON."""
    form: dict[str, Any] | None = None
    """http: form fields, sent as the body."""
    body: Any = None
    """http: body of the request. Text is sent unchanged."""
    retry: Any = None
    """http: retries and pages, as in kind http."""
    max_response_bytes: int | None = None
    """http: maximum bytes of the answer; a longer answer fails the transfer. Absent: 8 MiB, as in kind http."""
    data_path: str | None = None
    """http: dotted path to the rows in the answer, such as `data.items`; absent: the answer itself holds the rows."""

    def __post_init__(self) -> None:
        if self.type in ("postgres", "duckdb", "snowflake") and not (self.query or "").strip():
            raise ConfigurationError(
                f"field 'query' is missing: give the SELECT of the {self.type} source", field="query", reason="missing"
            )
        if self.type == "http" and not self.url:
            raise ConfigurationError("Source URL required for HTTP transfer: give 'url'", field="url", reason="missing")
        if self.type == "http":
            http_address(str(self.url), "url", "http")
            http_request.parse_method(self.method)
            http_retry.parse(self.retry)
            http_auth.check_auth(self.auth)
        _check_connection("source", self)


@dataclass(frozen=True, slots=True)
class TransferTarget(_EndConnection):
    """Config fields of a transfer's target: the table that receives the rows."""

    type: str
    """postgres, duckdb or snowflake."""
    table: str
    """Name of the table, also with its schema (`sales.orders`). Written as in SQL."""
    mapping: dict[str, str] = field(default_factory=dict)
    """Target column -> source column; the same as the transfer's own field `mapping`."""
    key: str | list[str] | None = None
    """Target columns that identify a row in an upsert; the same as the transfer's own field `key`."""

    def __post_init__(self) -> None:
        if not self.table.strip():
            raise ConfigurationError("Target table name required: give 'table'", field="table", reason="missing")
        if self.type == "duckdb" and not self.database:
            raise ConfigurationError(
                "a DuckDB target is a file: name it in 'database'", field="database", reason="missing"
            )
        if self.type == "duckdb" and str(self.database).startswith(MEMORY):
            given = f"'database' is {self.database!r}, which ends with the transfer"
            raise ConfigurationError(f"{given}: name the file of the DuckDB target", field="database")
        _check_connection("target", self)


def _check_connection(name: str, end: TransferSource | TransferTarget) -> None:
    """Raise ConfigurationError if the connection fields of a source or target are wrong. The credential is not fetched
    yet, so only an error that no credential can correct is raised."""
    if end.type == "postgres":
        check_connection(end)
    elif end.type == "snowflake":
        snowflake.check_connection(end)
    elif end.type == "duckdb":
        check_secrets(f"transfer: {name}", end.auth)


def end_type(name: str, given: Mapping[str, Any]) -> str | None:
    """Return the type of a source or target (`postgres`, `duckdb`, ...), or None if the type is a template.

    Raises:
        ConfigurationError: no type is given.
    """
    # The worker reads `kind` as its own field everywhere else; here it is the end's type.
    kind = next((given[key] for key in ("type", "kind", "tool") if given.get(key)), None)
    if kind is None:
        raise ConfigurationError(
            "field 'type' is missing; give one, such as 'postgres'", field=name, tool=f"transfer: {name}"
        )
    return None if fields.has_template(kind) else _OTHER_TYPES.get(str(kind).lower(), str(kind).lower())


def unread(name: str, kind: str, given: Mapping[str, Any]) -> list[ConfigurationError]:
    """Return a warning for each field in `given` that a source or target of the type `kind` does not read."""
    model, other = (TransferSource, TransferTarget) if name == "source" else (TransferTarget, TransferSource)
    read = _READ[kind] | _READ[name]
    if name == "target":
        read = (read | {"schema"}) - {"query"}  # a DuckDB table may have a schema too
    spellings = fields.field_spellings(model, _SPELLINGS)
    warnings, where = [], f"transfer: {name}"
    for key, value in given.items():
        field_name = spellings.get(key, key)
        if value in (None, {}, []) or field_name in read or key in fields.WORKER_FIELDS:
            continue
        if field_name in fields.field_names(model):
            warnings.append(fields.ignored_field(where, key, f"{kind} does not read it"))
        elif field_name in fields.field_names(other):
            warnings.append(fields.ignored_field(where, key, f"a {name} has none"))
        else:
            warnings.append(fields.unknown_field(where, key, read))
    return [warning.in_tool(where, field=name) for warning in warnings]


def decode_end(name: str, given: Mapping[str, Any], model: type[EndT]) -> EndT:
    """Return the rendered fields of a source or target as an instance of `model`.

    Raises:
        ConfigurationError: no type is given, or a field is missing or of the wrong type.
    """
    where, model_class = f"transfer: {name}", cast("Any", model)
    known, _ = fields.canonical(where, given, model_class, _SPELLINGS)
    known["type"] = kind = end_type(name, given)
    if kind == "duckdb" and known.get("connection_string"):
        known.setdefault("database", known["connection_string"])
    try:
        if "table" in fields.field_names(model_class) and not known.get("table"):
            raise ConfigurationError("Target table name required: give 'table'", field="table", tool=where)
        end: EndT = fields.decode(where, model_class, known, given)
    except ConfigurationError as error:
        ignored = unread(name, kind, given) if kind and kind in _READ else []
        raise fields.with_misspelt(error.in_tool(where, field=name), ignored) from error.__cause__
    return end
