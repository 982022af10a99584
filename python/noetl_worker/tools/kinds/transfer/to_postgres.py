"""A Postgres table as the target of a transfer: COPY, in one transaction."""

from __future__ import annotations

import decimal
import math
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.kinds.postgres.address import conninfo, library
from noetl_worker.tools.kinds.postgres.connection import connect
from noetl_worker.tools.kinds.postgres.errors import statement_failure
from noetl_worker.tools.kinds.postgres.params import unify_numbers
from noetl_worker.tools.kinds.postgres.postgres import session_settings
from noetl_worker.tools.kinds.transfer.plan import (
    JsonText,
    TransferPlan,
    Writer,
    check_keys,
    identifier,
    json_inside,
    json_text,
    without_json,
)

_STAGE: Final = "pg_temp.noetl_transfer_stage"
_TEXTS: Final = frozenset({"text", "character varying"})
_COLUMNS: Final = """
SELECT a.attname, pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL),
       coalesce(a.attnum = ANY(k.conkey), false), array_position(k.conkey, a.attnum)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'p'
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""
"""Query for the columns of a table: name, type (for a domain the base type), and position in the primary key."""

_READ_BY: Final = """
WITH RECURSIVE parts AS (
    SELECT %s::regclass::oid AS part UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN parts ON inhparent = part
)
SELECT 1 FROM pg_catalog.pg_locks JOIN parts ON relation = part
WHERE pid = %s AND granted AND extract(epoch FROM pg_postmaster_start_time())::text = %s
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
LIMIT 1
"""
"""Query that returns a row if a session holds a lock on the table or on one of its partitions. A transaction locks each
table that it reads, so the lock shows that the source reads the target."""


@asynccontextmanager
async def postgres_writer(plan: TransferPlan, context: ToolContext, duckdb: Duckdb) -> AsyncIterator[PostgresWriter]:
    """Open the target's connection for this transfer alone. Closing the connection rolls back a transfer that is not
    committed."""
    target = plan.target
    connection = await connect(await conninfo("transfer: target", target, context))
    try:
        await connection.execute(session_settings(target.schema, context.timeout_s) or "SELECT 1")
        yield PostgresWriter(plan, connection)
    finally:
        # Closing the connection aborts an open COPY; ending the COPY normally would keep its rows.
        connection.pgconn.finish()


class PostgresWriter(Writer):
    """A writer that uses COPY; an upsert copies into a temporary table first."""

    def __init__(self, plan: TransferPlan, connection: Any) -> None:
        super().__init__(plan)
        self._cursor = connection.cursor()
        self._table = ""
        self._kinds: list[str] = []
        self._copy: Any = None
        self._copying: Any = None

    async def begin(self, columns: Sequence[str], types: Sequence[str | None], sample: Sequence[Sequence[Any]]) -> None:
        del types, sample
        await self._run("BEGIN")
        name = self._plan.target.table
        found = await self._rows("SELECT to_regclass(%s)::text", (name,))
        if found[0][0] is None:
            raise ConfigurationError(f"transfer: target table {name!r} does not exist; create it first")
        self._table = found[0][0]
        known = await self._rows(_COLUMNS, (self._table,))
        kinds = {column: kind for column, kind, _, _ in known}
        primary = [column for column, _, is_key, _ in sorted(known, key=lambda row: row[3] or 0) if is_key]
        self._match(columns, list(kinds), primary)
        self._kinds = [kinds[column] for column in self._columns]
        if self._plan.mode == "replace":
            await self._check_not_read()
            await self._run(f"TRUNCATE {self._table}")
        if not columns:
            return
        into = self._table
        if self._keys:
            into = _STAGE
            await self._run(
                f"CREATE TEMPORARY TABLE {_STAGE.rpartition('.')[2]} ON COMMIT DROP AS "
                f"SELECT {self._names()} FROM {self._table} WITH NO DATA; "
                f"ALTER TABLE {_STAGE} ADD COLUMN {_place(self._columns)} bigserial"
            )
        self._copying = self._cursor.copy(f"COPY {into} ({self._names()}) FROM STDIN")
        self._copy = await self._guarded(self._copying.__aenter__())

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            adapted = [_adapted(value, kind) for value, kind in zip(row, self._kinds, strict=True)]
            check_keys(adapted, self._columns, self._keys)
            await self._guarded(self._copy.write_row(adapted))

    async def commit(self) -> Mapping[str, JsonValue]:
        copying, self._copying = self._copying, None
        if copying is not None:
            await self._guarded(copying.__aexit__(None, None, None))
        counts: dict[str, JsonValue] = {}
        if self._keys:
            [(inserted, updated)] = await self._rows(self._merge(), None)
            counts = {"rows_inserted": inserted, "rows_updated": updated}
        await self._run("COMMIT")
        return counts

    async def _check_not_read(self) -> None:
        """Raise ConfigurationError if the source's session reads the target table that mode `replace` empties. TRUNCATE
        would wait for the lock of this session, which holds the lock until the transfer ends."""
        source = self._plan.source
        if source is not None and await self._rows(_READ_BY, (self._table, source.pid, source.server_started)):
            raise ConfigurationError(
                f"transfer: the source reads {self._table}, which mode 'replace' empties first; use kind postgres with "
                "DELETE and INSERT ... SELECT, or transfer into another table"
            )

    def _merge(self) -> str:
        keys = ", ".join(map(identifier, self._keys))
        latest = f"SELECT DISTINCT ON ({keys}) * FROM {_STAGE} ORDER BY {keys}, {_place(self._columns)} DESC"
        # Without xmax, which a partitioned table lacks: all parts of one statement see the table as it was before.
        return (
            f"WITH before AS (SELECT count(*) AS n FROM (SELECT DISTINCT {keys} FROM {_STAGE}) AS s "
            f"JOIN {self._table} USING ({keys})), "
            f"moved AS (INSERT INTO {self._table} ({self._names()}) OVERRIDING SYSTEM VALUE "
            f"SELECT {self._names()} FROM ({latest}) AS latest "
            f"ON CONFLICT ({keys}) DO UPDATE SET {self._changes('EXCLUDED')} RETURNING 1) "
            "SELECT (SELECT count(*) FROM moved) - n, n FROM before"
        )

    async def _run(self, text: str) -> None:
        await self._guarded(self._cursor.execute(text), text)

    async def _rows(self, text: str, params: Any) -> list[Any]:
        await self._guarded(self._cursor.execute(text, params), text)
        rows: list[Any] = await self._cursor.fetchall()
        return rows

    async def _guarded(self, step: Any, text: str = "") -> Any:
        try:
            return await step
        except library().Error as error:
            raise statement_failure(error, text or f"copy into {self._plan.target.table}") from error


def _place(columns: Sequence[str]) -> str:
    """Return a name, not in `columns`, for the extra column that numbers the rows. Among rows with the same key, the
    row with the highest number wins."""
    name = "noetl_place"
    while name in columns:
        name += "_"
    return name


def _adapted(value: Any, kind: str) -> Any:
    """Convert a value to a Python object for COPY. psycopg writes the object as text that a column of type `kind`
    accepts."""
    if value is None:
        return None
    if kind in ("json", "jsonb"):
        return json_text(value)
    if kind.endswith("[]"):
        if isinstance(value, JsonText) and value.lstrip().startswith("["):
            value = json_inside(value)
        if isinstance(value, (list, tuple)):
            elements = [_element(item, kind) for item in value]
            return elements if kind.removesuffix("[]") in _TEXTS else unify_numbers(elements)
    if isinstance(value, (dict, list, tuple)):
        return json_text(value)
    return _single(value, kind)


def _element(value: Any, kind: str) -> Any:
    """Convert one element of an array for COPY. `kind` is the array's type. A list in the array is a further dimension,
    or a JSON value if the array holds JSON."""
    if value is not None and (kind.startswith("json") or isinstance(value, dict)):
        return json_text(value)
    if isinstance(value, list):
        return [_element(item, kind) for item in value]
    single = _single(value, kind.removesuffix("[]"))
    if kind.removesuffix("[]") in _TEXTS and isinstance(single, (int, float)) and math.isfinite(single):
        return str(single)  # psycopg refuses a list of numbers and texts
    return single


def _single(value: Any, kind: str) -> Any:
    """Return a value for COPY in the text form that Postgres uses. psycopg would write UUIDs without dashes, true as
    `t`, and decimals like `1E-7`."""
    value = without_json(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if kind in _TEXTS and isinstance(value, bool):
        return "true" if value else "false"
    if kind in _TEXTS and isinstance(value, decimal.Decimal) and value.is_finite():
        return format(value, "f")
    return value
