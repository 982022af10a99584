"""Kind `transfer`: moves rows from a source into a table of a target, in one transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from noetl_worker.errors import ConfigurationError, ResourceShortage
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.fields import check_numbers, has_template, rendered
from noetl_worker.tools.kinds.duckdb.files import hold_lock
from noetl_worker.tools.kinds.duckdb.paths import canonical
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.kinds.transfer import sources as transfer_sources
from noetl_worker.tools.kinds.transfer.ends import (
    RENDERED_BY_HTTP,
    TransferSource,
    TransferTarget,
    decode_end,
    end_type,
    unread,
)
from noetl_worker.tools.kinds.transfer.plan import TransferPlan
from noetl_worker.tools.kinds.transfer.to_duckdb import duckdb_writer
from noetl_worker.tools.kinds.transfer.to_postgres import postgres_writer
from noetl_worker.tools.kinds.transfer.to_snowflake import snowflake_writer
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement

_WRITERS: Final[Mapping[str, Any]] = {
    "postgres": postgres_writer,
    "duckdb": duckdb_writer,
    "snowflake": snowflake_writer,
}


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Move rows from `source` into the table of `target`: all of them or, after any failure, none.

    * `mode: append` adds rows; `replace` empties the table first, even when there are no new rows; `upsert` replaces
      rows with equal `key` columns and adds the other rows (if two source rows have the same key, the later row wins).
    * Rows are read and written in chunks: memory holds one chunk (an http source: the complete answer).
    * The table must exist; only a DuckDB table is created when it is missing, with types like the source's (numeric
      without a precision becomes VARCHAR, which is exact). Column names are matched, exactly or ignoring case, unless
      `mapping` is given.
    * JSON of a Postgres or DuckDB source reaches a JSON column unchanged, with null and every digit. A column of
      another type gets the JSON as text, a JSON string without its quotes, and NULL for null.
    * Objects and lists go into JSON columns as JSON, lists into array columns as arrays, and both into text columns as
      JSON. Text that is a JSON object or array goes into a JSON column as it is, other text as a JSON string.

    Data: {direction, source_type, target_type, mode, rows_transferred, chunks_processed, target_table, columns}, and
    with upsert rows_inserted and rows_updated.
    """

    source: dict[str, Any] | str = field(repr=False)
    """`type` postgres, duckdb, snowflake (each with `query` and its connection: `auth`, `connection_string`, host and
    so on, or `database` of a DuckDB file), http (`url`, `method`, `headers`, `params`, `json`, `form`, `body`,
    `auth`, `retry`, `max_response_bytes` as kind http has them, `data_path`: dotted path to the rows). Files are read
    by a duckdb source: `SELECT * FROM 'a.csv'`."""
    target: dict[str, Any] = field(repr=False)
    """`type` postgres, duckdb or snowflake, its connection, `table` (with `schema`); `key` and `mapping` are accepted
    here too."""
    mode: Literal["append", "replace", "upsert"] = "append"
    """Treatment of existing rows: append keeps them, replace deletes all, upsert replaces those with equal keys."""
    mapping: dict[str, str] = field(default_factory=dict)
    """Target column -> source column, or a dotted path into an object in a source column. Only these columns are moved.
    Absent: every source column."""
    key: str | list[str] | None = None
    """Columns of the target that identify a row in an upsert; absent: the target's primary key."""
    chunk_size: int = 1000
    """Rows read and written at a time, 1 to 100000."""
    timeout: float | None = None
    """Maximum time of the transfer in seconds; absent: the command's remaining time."""
    ends: tuple[TransferSource | None, TransferTarget] = field(init=False, repr=False, compare=False)
    """The checked source and target. The source is None if it has templates: `source_now` renders and checks such a
    source."""

    def __post_init__(self) -> None:
        target = decode_end("target", self.target, TransferTarget)
        if isinstance(self.source, str) and not has_template(self.source):
            raise ConfigurationError("field 'source' must be an object, not text", field="source")
        kind = None if isinstance(self.source, str) else end_type("source", self.source)
        if kind is not None:
            _check_direction(kind, target)
        check_numbers(1, 100_000, chunk_size=self.chunk_size)
        object.__setattr__(self, "ends", (None, target))
        if self.keys() and self.mode != "upsert":
            raise ConfigurationError(f"'key' belongs to mode 'upsert', not {self.mode!r}", field="key")
        if target.type == "snowflake" and self.mode == "upsert" and not self.keys():
            raise ConfigurationError(
                "a snowflake target has no unique key to go by; give 'key' for upsert", field="key"
            )
        if isinstance(self.source, dict):
            rendered_here = [value for key, value in self.source.items() if key not in RENDERED_BY_HTTP]
            if not has_template(rendered_here):
                object.__setattr__(self, "ends", (self._checked(self.source), target))

    def _checked(self, given: Mapping[str, Any]) -> TransferSource:
        target = self.ends[1]
        _check_direction(end_type("source", given), target)
        return decode_end("source", given, TransferSource)

    def source_now(self, context: ToolContext) -> TransferSource:
        """Return the source with rendered templates. Kind http itself renders the templates of `headers` and `retry`.

        Raises:
            ConfigurationError: the rendered source is invalid, or it is the same DuckDB file as the target.
        """
        if self.ends[0] is not None:
            return self.ends[0]
        render = context.values.render
        if isinstance(self.source, str):
            given = render(self.source)
        else:
            given = rendered("transfer: source", self.source, RENDERED_BY_HTTP, render)
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"transfer: field 'source' must be an object, not {type(given).__name__}")
        try:
            source = self._checked(given)
            _check_files(source, self.ends[1], context.settings)
        except ConfigurationError as error:
            raise error.in_tool("transfer") from error.__cause__
        # If the type was known before the rendering, `ignored` has already reported these fields.
        if isinstance(self.source, str) or end_type("source", self.source) is None:
            for problem in unread("source", source.type, given):
                advice = "correct the field of that step which `problem` names"
                context.logger.warning("tool_config", kind="transfer", problem=str(problem), advice=advice)
        return source

    def keys(self) -> list[str]:
        given = self.key if self.key is not None else self.ends[1].key
        return [given] if isinstance(given, str) else list(given or ())

    def columns(self) -> dict[str, str]:
        return self.mapping or self.ends[1].mapping


def _check_direction(kind: str | None, target: TransferTarget) -> None:
    if kind not in transfer_sources.READERS or target.type not in _WRITERS:
        known = f"sources: {', '.join(transfer_sources.READERS)}; targets: {', '.join(_WRITERS)}"
        problem = f"Unsupported transfer direction: {kind} to {target.type}; {known}"
        raise ConfigurationError(problem, field="target.type")


def _check_files(source: TransferSource, target: TransferTarget, settings: ToolSettings) -> None:
    is_of_files = source.type == target.type == "duckdb" and bool(source.database)
    if is_of_files and len(_files(source, target, settings)) == 1:
        problem = "source and target are one DuckDB file; use kind duckdb with INSERT INTO ... SELECT"
        raise ConfigurationError(problem, field="source", tool="transfer")


class TransferTool:
    """Tool of kind `transfer`. Each transfer has its own connections to source and target. Closing these connections
    rolls back a transfer that was interrupted."""

    kind: ClassVar[str] = "transfer"
    aliases: ClassVar[tuple[str, ...]] = ("snowflake_transfer",)
    config_model: ClassVar[type] = TransferConfig
    field_aliases: ClassVar[Mapping[str, str]] = {
        "keys": "key",
        "key_columns": "key",
        "conflict_columns": "key",
        "primary_key": "key",
        "batch_size": "chunk_size",
        "columns": "mapping",
    }
    raw_fields: ClassVar[frozenset[str]] = frozenset({"source"})
    requires: ClassVar[Mapping[str, str]] = {
        "duckdb": "noetl-worker[duckdb] for duckdb",
        "psycopg": "noetl-worker[postgres] for postgres",
        "snowflake.connector": "noetl-worker[snowflake] for snowflake",
    }
    is_confined: ClassVar[bool] = True

    def __init__(self, *, confinement: Confinement = UNCONFINED) -> None:
        # source and target may have a DuckDB process each, so each process gets half of the memory
        self._duckdb = Duckdb(dataclasses.replace(confinement, duckdb_bytes=confinement.duckdb_bytes // 2))

    def check(self, config: TransferConfig, context: ToolContext) -> None:
        """Refuse a transfer whose source and target are the same DuckDB file. A source with templates is checked only
        after its templates are rendered."""
        source, target = config.ends
        if source is not None:
            _check_files(source, target, context.settings)

    def ignored(self, config: TransferConfig) -> list[ConfigurationError]:
        """Return warnings about fields that belong to a source or target of another type."""
        kind = end_type("source", config.source) if isinstance(config.source, dict) else None
        ignored = unread("source", kind, config.source) if kind and isinstance(config.source, dict) else []
        return [*ignored, *unread("target", config.ends[1].type, config.target)]

    async def run(self, config: TransferConfig, context: ToolContext) -> ToolResult:
        return await in_time(self._moved(config, context), context.timeout_s)

    async def aclose(self) -> None:
        await self._duckdb.aclose()

    async def _moved(self, config: TransferConfig, context: ToolContext) -> dict[str, JsonValue]:
        source, target = config.source_now(context), config.ends[1]
        async with AsyncExitStack() as stack:
            for database, read_only in sorted(_files(source, target, context.settings).items()):
                await stack.enter_async_context(hold_lock(database, read_only=read_only))
            inner = context if isinstance(config.source, dict) else transfer_sources.without_rendering(context)
            opening = transfer_sources.READERS[source.type](source, config.chunk_size, inner, self._duckdb)
            rows = await stack.enter_async_context(opening)
            plan = TransferPlan(config.mode, config.keys(), target, rows.session)
            chosen = _paths_by_target_column(config.columns(), rows.columns) if rows.columns else {}
            try:
                sink = await stack.enter_async_context(_WRITERS[target.type](plan, context, self._duckdb))
            except ResourceShortage as short:  # the source's query has run, and may have changed data
                raise short.after_an_effect() from short
            paths = list(chosen.values())
            types = [rows.types.get(path.split(".", 1)[0]) if "." not in path else None for path in paths]
            await sink.begin(list(chosen), types, rows.picked(rows.all_rows, paths))
            moved = chunks = 0
            while chunk := await rows.fetch():
                await sink.write(rows.picked(chunk, paths))
                moved, chunks = moved + len(chunk), chunks + 1
            counts = await sink.commit()
        return {
            "direction": f"{source.type}_to_{target.type}",
            "source_type": source.type,
            "target_type": target.type,
            "mode": config.mode,
            "rows_transferred": moved,
            "chunks_processed": chunks,
            "target_table": target.table,
            "columns": list(chosen),
            **counts,
        }


def _files(source: TransferSource, target: TransferTarget, settings: ToolSettings) -> dict[str, bool]:
    """Return a dict whose keys are the paths of a transfer's DuckDB files. A value is True if the transfer only reads
    the file. Transfers lock the files in the order of the paths, so that two transfers never wait for each other."""
    files = {}
    if source.type == "duckdb" and source.database:
        files[canonical("transfer: source: 'database'", source.database, settings)] = True
    if target.type == "duckdb":
        files[canonical("transfer: target: 'database'", str(target.database), settings)] = False
    return files


def _paths_by_target_column(mapping: Mapping[str, str], columns: list[str]) -> dict[str, str]:
    """Return a dict from each target column to a path in the source's rows: a column, or a column and keys in its
    objects (`column.key`). Raises ConfigurationError if the source has no column, or several columns, of the name with
    which a path begins."""
    paths = list(mapping.values()) or columns
    wanted = {path if path in columns else path.split(".", 1)[0] for path in paths}
    several = sorted(name for name in wanted if columns.count(name) > 1)
    if several:
        raise ConfigurationError(
            f"transfer: the source has several columns of the same name ({', '.join(map(repr, several))}): "
            "give each a name of its own with AS"
        )
    if not mapping:
        return {name: name for name in columns}
    for path in mapping.values():
        if path not in columns and path.split(".", 1)[0] not in columns:
            known = ", ".join(columns) or "none"
            raise ConfigurationError(f"transfer: the source has no column {path!r}; it has: {known}")
    return dict(mapping)
