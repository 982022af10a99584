"""Kind `duckdb`: SQL in an embedded DuckDB, in memory unless a database file is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolForm
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.kinds.duckdb.files import command_database, hold_lock
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.secrets import check_secrets, fetch_secrets, parse_extension
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.sources.sources import Sources
from noetl_worker.tools.sql import sql
from noetl_worker.tools.sql.source import check_sql, read_sql


@dataclass(frozen=True, slots=True)
class DuckdbConfig(sql.SqlFields):
    """Run SQL in an embedded DuckDB. Data, with the last statement's result: {columns, rows, row_count, affected_rows,
    statements, statement_count}, and `truncated: true` when rows were left out.

    * Without `database` the tables live in memory and end with the command. A worker with `NOETL_DATA_DIR` keeps the
      tables of each execution in a file instead: `NOETL_DATA_DIR/noetldb/duckdb_<id>.duckdb`, as the Python worker
      does. **Another worker does not see this file** (unless the workers share the directory), and no worker deletes
      the file. Set `NOETL_DATA_DIR` only with one worker, for playbooks that rely on the execution's file.
    * Commands of this worker that write the same file run one after the other; commands with `read_only` run together.
      If another process has the file open, a command waits 30 s at most.
    * Each statement is a transaction of its own unless the text has BEGIN and COMMIT. A text that leaves a transaction
      open fails.
    * Only NULL becomes null. DECIMAL becomes exact text, and so do integers beyond 64 bits. Dates and times become ISO
      8601, INTERVAL an ISO 8601 duration (DuckDB's library counts a month as 30 days). BLOB becomes base64, JSON its
      value, STRUCT and MAP an object, LIST a list, UUID text. NaN and infinite numbers become "NaN", "Infinity",
      "-Infinity"; infinite dates and timestamps become "infinity", "-infinity".
    * Playbooks cannot open files under /proc, /sys and the worker's own directories. With `NOETL_WORKER_FILE_ROOTS`
      (directories, separated by `:`) DuckDB opens only files in these directories and no remote path. SQL can then load
      only the step's `extensions`.
    * Each command has a process of its own, which sees no variable, descriptor or memory of the worker. The process
      ends with the command. A crash, or too much memory, fails only that command.
    * A timeout or a cancelled execution ends the statement.
    """

    query: str | list[str] | None = None
    """SQL text of one or more statements, or a list of such texts. DuckDB splits a text into its statements."""
    script: str | dict[str, Any] | None = None
    """Source of the SQL, instead of `query`: a path, a file://, http(s)://, gs:// or s3:// address, or {"uri",
    "source": {"type": inline | file | http | gcs | s3, ...}} as in the python kind. The worker renders templates in the
    SQL."""
    params: dict[str, Any] | list[Any] = field(default_factory=list)
    """Values for the placeholders of the last statement: a list for `?` or `$1`, an object for `$name`."""
    database: str | None = None
    """Database file. DuckDB creates a file that does not exist. `:memory:` is a database in memory. Absent: the
    execution's file in NOETL_DATA_DIR, or a database in memory if NOETL_DATA_DIR is not set."""
    read_only: bool = False
    """Open the database file for reading only. Several commands and other processes can then read the file at the same
    time."""
    auth: str | dict[str, Any] | None = field(default=None, repr=False)
    """Credentials for ATTACH and for s3://, gs:// and https:// paths; DuckDB gets each credential as a secret. An alias
    is one credential; an object `name: {source: credential, key: alias}` has several. Use a secret as in
    `ATTACH '' AS pg (TYPE postgres, SECRET name)`."""
    extensions: list[str] = field(default_factory=list)
    """Extensions to load: `spatial`, or `h3 from community`. A missing extension is installed first."""
    memory_limit: str | None = None
    """Maximum memory of the command, like 2GB. Absent: NOETL_DUCKDB_MEMORY_LIMIT, or else the command's share. The
    share is 80 % of the machine's memory, divided by the number of DuckDB commands that may run at once. The worker
    lowers a value above the share to the share. With NOETL_WORKER_ISOLATION=off the share is the whole 80 %, and a
    value may be above it."""
    threads: int | None = None
    """Number of threads for one query. Absent: one thread for each processor core."""

    def __post_init__(self) -> None:
        check_sql("duckdb", self)
        check_numbers(1, max_rows=self.max_rows, threads=self.threads)
        check_secrets("duckdb", self.auth)
        for wanted in self.extensions:
            parse_extension("duckdb", wanted)


class DuckdbTool:
    """Tool of kind `duckdb`. Each command gets a process of its own, which opens the database and closes the database
    at the end."""

    kind: ClassVar[str] = "duckdb"
    config_model: ClassVar[type] = DuckdbConfig
    field_aliases: ClassVar[Mapping[str, str]] = sql.SPELLINGS
    raw_fields: ClassVar[frozenset[str]] = frozenset({"query_b64"})
    requires: ClassVar[Mapping[str, str]] = {
        "duckdb": "noetl-worker[duckdb]",
        "botocore": "noetl-worker[aws] for s3:// scripts",
    }
    is_confined: ClassVar[bool] = True

    def __init__(self, *, confinement: Confinement = UNCONFINED) -> None:
        self._duckdb = Duckdb(confinement)
        self._sources = Sources(self.kind)

    async def run(self, config: DuckdbConfig, context: ToolContext) -> ToolResult:
        opening = Opening(
            kind=self.kind,
            database=command_database(config.database, context.command.execution_id, context.settings),
            read_only=config.read_only,
            memory_limit=config.memory_limit,
            threads=config.threads,
            extensions=tuple(config.extensions),
            secrets=tuple(await fetch_secrets(self.kind, config.auth, context)),
        )
        text = await read_sql(self.kind, config, self._sources, context)
        self._duckdb.check_files(self.kind, text, context.settings, config.params)
        batch = sql.Batch(config.as_objects, config.max_rows)
        ours = hold_lock(opening.database, read_only=opening.read_only)
        late = await self._duckdb.run(ours, opening, batch, text, config.params, context)
        return late or ToolResult.success(_data(batch, context.command.form))

    async def aclose(self) -> None:
        await self._sources.aclose()
        await self._duckdb.aclose()


def _data(batch: sql.Batch, form: ToolForm) -> dict[str, JsonValue]:
    """Return the data of a step's result. On the Python plane add the fields of the Python worker: `executed_commands`,
    and for each statement `command_1_rows`, `command_1_sample` and so on.

    In the added fields, a value of a JSON column is text (recorded: duckdb-multi, duckdb-json).
    """
    data = batch.data(form)
    if form.numbers_statements:
        data["executed_commands"] = len(batch.statements)
        for number, (statement, sample) in enumerate(zip(batch.statements, batch.samples, strict=True), 1):
            if sample:
                data[f"command_{number}_rows"] = statement["row_count"] or len(sample)
                data[f"command_{number}_sample"] = sample
    return data
