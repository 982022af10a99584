"""Kind `ducklake`: runs SQL in a DuckLake catalog, in DuckDB processes like those of kind `duckdb`."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.kinds.duckdb.files import hold_lock
from noetl_worker.tools.kinds.duckdb.opening import Attached, Opening
from noetl_worker.tools.kinds.duckdb.paths import MEMORY, canonical
from noetl_worker.tools.kinds.duckdb.secrets import DuckdbSecret, check_secrets, fetch_secrets, parse_extension, quoted
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.sql import sql

_CATALOG_SECRET: Final = "ducklake_catalog"
_PAIR: Final = re.compile(r"\b(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_SERVERS: Final = ("postgres", "mysql")


@dataclass(frozen=True, slots=True)
class DucklakeConfig(sql.SqlFields):
    """Run SQL in a DuckLake: tables as Parquet files under `data_path`, their catalog in a database.

    The catalog is attached as `catalog_name` and is the default, so that tables need no prefix. The data has the fields
    of kind `duckdb`, and `catalog: {name, data_path}`. The worker loads DuckDB's extension `ducklake`, and `postgres`,
    `sqlite` or `mysql` for a catalog of this type. A missing extension is installed. A catalog in a DuckDB file is for
    one worker; several workers need a catalog in Postgres.

    SQL may open the same files as in kind `duckdb`. With `NOETL_WORKER_FILE_ROOTS` (a list of directories) a catalog
    file and `data_path` must be in one of these directories. A catalog in Postgres or MySQL needs no such directory.
    """

    query: str | list[str] | None = None
    """SQL text of one or more statements, or a list of such texts. DuckDB splits a text into its statements."""
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    """Values for the placeholders of the last statement: a list for `?` or `$1`, an object for `$name`."""
    catalog_connection: str | None = field(default=None, repr=False)
    """Address of the catalog: `postgresql://...` or `postgres:host=... dbname=...`, `sqlite:FILE`, or the path of a
    DuckDB file. Absent: the address in the first credential of `auth` that has the type postgres or mysql."""
    auth: str | dict[str, Any] | None = field(default=None, repr=False)
    """Credentials of the catalog and of the object store (s3, gcs) that `data_path` names. An alias is one credential;
    an object `name: {source: credential, key: alias}` has several."""
    catalog_name: str = "lake"
    """Name under which SQL uses the catalog, as in `lake.main.orders`."""
    data_path: str | None = None
    """Directory or s3://, gs:// prefix of the Parquet files. Required."""
    create_catalog: bool = True
    """Create a catalog that does not exist. With false the command fails instead."""
    use_catalog: bool = True
    """Run `USE catalog_name` before the first statement."""
    read_only: bool = False
    """Attach the catalog for reading only."""
    extensions: list[str] = field(default_factory=list)
    """Further DuckDB extensions to load. The worker installs an extension that is missing."""
    memory_limit: str | None = None
    """Maximum memory of the command, as in kind `duckdb`."""
    threads: int | None = None
    """Number of threads for one query. Absent: one thread for each processor core."""

    def __post_init__(self) -> None:
        sql.sql_text(self.query, self.query_b64)
        if not self.data_path:
            raise ConfigurationError(
                "field 'data_path' is missing: give the directory or s3:// prefix of the Parquet files",
                field="data_path",
                reason="missing",
            )
        if not self.catalog() and self.auth is None:
            raise ConfigurationError(
                "no catalog; give 'catalog_connection', or 'auth' of type postgres or mysql", field="catalog_connection"
            )
        if not re.fullmatch(r"[A-Za-z_]\w*", self.catalog_name):
            raise ConfigurationError(
                f"'catalog_name' is {self.catalog_name!r}: give a name of letters, digits and _", field="catalog_name"
            )
        check_numbers(1, max_rows=self.max_rows, threads=self.threads)
        check_secrets("ducklake", self.auth)
        _parse_server(self.catalog())
        for wanted in self.extensions:
            parse_extension("ducklake", wanted)

    def catalog(self) -> str:
        """Return `catalog_connection` without the prefix `ducklake:`, or an empty text if the field is absent."""
        return (self.catalog_connection or "").removeprefix("ducklake:").strip()


class DucklakeTool:
    """Tool of kind `ducklake`. Each command opens a DuckDB in memory and attaches the catalog.

    differs-from-upstream: the `ducklake` of NoETL's Rust worker is its `duckdb` under another name. NoETL's own Python
    worker continues after a failed statement; here the first failed statement ends the command.
    """

    kind: ClassVar[str] = "ducklake"
    config_model: ClassVar[type] = DucklakeConfig
    field_aliases: ClassVar[Mapping[str, str]] = {**sql.SPELLINGS, "catalog": "catalog_connection"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"query_b64"})
    requires: ClassVar[Mapping[str, str]] = {"duckdb": "noetl-worker[duckdb]"}
    is_confined: ClassVar[bool] = True

    def __init__(self, *, confinement: Confinement = UNCONFINED) -> None:
        self._duckdb = Duckdb(confinement)

    async def run(self, config: DucklakeConfig, context: ToolContext) -> ToolResult:
        secrets = await fetch_secrets(self.kind, config.auth, context)
        opening, metadata = lake_opening(config, secrets, context)
        text = sql.sql_text(config.query, config.query_b64)
        self._duckdb.check_files(self.kind, text, context.settings, config.params)
        batch = sql.Batch(config.as_objects, config.max_rows)
        ours = hold_lock(metadata if metadata.startswith("/") else MEMORY, read_only=config.read_only)
        late = await self._duckdb.run(ours, opening, batch, text, config.params, context)
        catalog: dict[str, JsonValue] = {"name": config.catalog_name, "data_path": config.data_path}
        return late or ToolResult.success({**batch.data(), "catalog": catalog})

    async def aclose(self) -> None:
        await self._duckdb.aclose()


def lake_opening(config: DucklakeConfig, secrets: list[DuckdbSecret], context: ToolContext) -> tuple[Opening, str]:
    """Return the settings with which the command's DuckDB process attaches the catalog, and the catalog's path in the
    ATTACH statement (`postgres:`, `sqlite:/a/b`).

    Raises:
        ConfigurationError: the catalog or `data_path` cannot be used, for instance because its path is outside
            NOETL_WORKER_FILE_ROOTS.
    """
    metadata, catalog_secret = _catalog(config, secrets, context)
    if catalog_secret is not None and catalog_secret not in secrets:
        secrets = [*secrets, catalog_secret]
    canonical("ducklake: 'data_path'", str(config.data_path), context.settings, is_directory=True)
    opening = Opening(
        kind=DucklakeTool.kind,
        memory_limit=config.memory_limit,
        threads=config.threads,
        extensions=("ducklake", *_catalog_extensions(metadata), *config.extensions),
        secrets=tuple(secrets),
        attach=Attached(_attach(config, metadata, catalog_secret), config.catalog_name, config.use_catalog),
    )
    return opening, metadata


def _catalog(
    config: DucklakeConfig, secrets: list[DuckdbSecret], context: ToolContext
) -> tuple[str, DuckdbSecret | None]:
    """Return the catalog's path in the ATTACH statement, and the DuckDB secret with the server's address and login. The
    secret is None for a catalog in a file."""
    given = config.catalog()
    from_auth = next((secret for secret in secrets if secret.kind in _SERVERS), None)
    server = _parse_server(given)
    if server is not None:
        kind, address = server
        values = {**(from_auth.values if from_auth else {}), **address}
        if values.get("PASSWORD"):
            context.secrets.keep(values["PASSWORD"])
        return f"{kind}:", DuckdbSecret(_CATALOG_SECRET, kind, kind, values)
    if given:
        kind = "sqlite:" if given.startswith("sqlite:") else ""
        file = given.removeprefix("duckdb:").removeprefix(kind)
        return kind + canonical("ducklake: 'catalog_connection'", file, context.settings), None
    if from_auth is None:
        raise ConfigurationError(
            f"ducklake: 'auth' has no credential of type {' or '.join(_SERVERS)}; give 'catalog_connection'"
        )
    return f"{from_auth.kind}:", from_auth


def _parse_server(catalog: str) -> tuple[str, dict[str, str]] | None:
    """Return the type of the server (postgres or mysql), and the server's address as options of a DuckDB secret. Return
    None for a catalog in a file."""
    kind, _, address = catalog.partition(":")
    if kind not in ("postgres", "postgresql", "mysql"):
        return None
    return "postgres" if kind == "postgresql" else kind, _address(catalog, address)


def _address(address: str, pairs: str) -> dict[str, str]:
    """Parse the address of a catalog server into options of a DuckDB secret (`HOST`, `PORT`, ...). Read `address` if
    this text is a URL, else `pairs` (`host=db port=5432`)."""
    if "://" in address:
        url = urllib.parse.urlsplit(address)
        try:
            port = url.port
        except ValueError:
            raise ConfigurationError(
                "the port of 'catalog_connection' is no number: give one like 5432",
                field="catalog_connection",
                tool="ducklake",
            ) from None
        found = {"HOST": url.hostname, "PORT": port, "DATABASE": url.path.lstrip("/")}
        found.update(USER=url.username, PASSWORD=url.password)
        return {name: urllib.parse.unquote(str(value)) for name, value in found.items() if value}
    names = {"HOST": "HOST", "PORT": "PORT", "DBNAME": "DATABASE", "DATABASE": "DATABASE", "DB": "DATABASE"}
    names.update(USER="USER", PASSWORD="PASSWORD", PASSWD="PASSWORD")
    found_pairs = {key.upper(): _unquoted(value) for key, value in _PAIR.findall(pairs)}
    unknown = sorted(key.lower() for key in found_pairs if key not in names)
    if unknown:
        raise ConfigurationError(
            f"'catalog_connection' has options that cannot be passed to DuckDB: {', '.join(unknown)}; leave them out",
            field="catalog_connection",
            tool="ducklake",
        )
    return {names[key]: value for key, value in found_pairs.items()}


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith("'") else value


def _catalog_extensions(metadata: str) -> tuple[str, ...]:
    kind = metadata.partition(":")[0] if ":" in metadata else ""
    return (kind,) if kind in (*_SERVERS, "sqlite") else ()


def _attach(config: DucklakeConfig, metadata: str, secret: DuckdbSecret | None) -> str:
    options = [f"DATA_PATH {quoted(str(config.data_path))}"]
    options.append(f"CREATE_IF_NOT_EXISTS {str(config.create_catalog).lower()}")
    if config.read_only:
        options.append("READ_ONLY")
    if secret is not None:
        options.append(f"META_SECRET {quoted(secret.name)}")
    return f'ATTACH {quoted("ducklake:" + metadata)} AS "{config.catalog_name}" ({", ".join(options)})'
