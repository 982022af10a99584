"""A table of a DuckDB file as the target of a transfer: one INSERT for each chunk, in one transaction."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.paths import canonical
from noetl_worker.tools.kinds.duckdb.secrets import fetch_secrets
from noetl_worker.tools.kinds.duckdb.session import Duckdb, Session
from noetl_worker.tools.kinds.transfer.plan import (
    JsonText,
    TransferPlan,
    Writer,
    check_keys,
    identifier,
    json_text,
    matched,
    table_parts,
    without_json,
)

_SEEN: Final = "temp.noetl_transfer_keys"
_INTEGER: Final = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER)")
_NESTED: Final = re.compile(r".*(\[\d*\]|\))")
_INTEGER_TEXT: Final = re.compile(r"\s*[+-]?\d+\s*")
_COLUMNS: Final = (
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_catalog = current_database() "
    "AND table_schema = coalesce(?, current_schema()) AND lower(table_name) = lower(?) ORDER BY ordinal_position"
)
_KEY: Final = (
    "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = current_database() "
    "AND schema_name = coalesce(?, current_schema()) AND lower(table_name) = lower(?) "
    "AND constraint_type = 'PRIMARY KEY'"
)


@asynccontextmanager
async def duckdb_writer(plan: TransferPlan, context: ToolContext, duckdb: Duckdb) -> AsyncIterator[DuckdbWriter]:
    """Open the target's file for this transfer alone. Closing the file rolls back a transfer that is not committed."""
    kind, target = "transfer: target", plan.target
    database = canonical(f"{kind}: 'database'", str(target.database), context.settings)
    secrets = tuple(await fetch_secrets(kind, target.auth, context))
    async with duckdb.opened(Opening(kind, database, secrets=secrets), context.settings) as session:
        yield DuckdbWriter(plan, session)


class DuckdbWriter(Writer):
    """A writer that passes each chunk as one JSON text: parameters row by row are a hundred times slower in DuckDB."""

    def __init__(self, plan: TransferPlan, session: Session) -> None:
        super().__init__(plan)
        self._session = session
        self._types: list[str] = []
        self._insert = ""
        self._insert_keys = ""
        self._rows_before = 0
        *schema, self._name = table_parts(plan.target.table)
        self._schema = schema[-1] if schema else plan.target.schema
        self._table = ".".join(map(identifier, filter(None, [self._schema, self._name])))

    async def begin(self, columns: Sequence[str], types: Sequence[str | None], sample: Sequence[Sequence[Any]]) -> None:
        await self._run("BEGIN")
        where = [self._schema, self._name]
        known = dict(await self._run(_COLUMNS, where))
        if not known:
            known = await self._created(columns, types, sample)
        primary = await self._run(_KEY, where)
        self._match(columns, list(known), primary[0][0] if primary else [])
        own, keys = self._columns, self._keys
        self._types = [known[column] for column in own]
        if self._plan.mode == "replace":
            await self._run(f"DELETE FROM {self._table}")
        if keys:
            self._rows_before = await self._size()
            names = ", ".join(map(identifier, keys))
            await self._run(f"CREATE TEMP TABLE {_SEEN} AS SELECT {names} FROM {self._table} LIMIT 0")
            parts = ", ".join(_cast(f"r.c{own.index(key)}", known[key]) for key in keys)
            self._insert_keys = f"INSERT INTO {_SEEN} SELECT DISTINCT {parts} FROM ({_rows_query(own)})"
        self._insert = self._insert_statement()

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        chunk = []
        for row in rows:
            texts = [_text(value, kind) for value, kind in zip(row, self._types, strict=True)]
            check_keys(texts, self._columns, self._keys)
            chunk.append({f"c{number}": text for number, text in enumerate(texts)})
        packed = json.dumps(chunk, ensure_ascii=False)
        await self._run(self._insert, [packed])
        if self._insert_keys:
            await self._run(self._insert_keys, [packed])

    async def commit(self) -> Mapping[str, JsonValue]:
        counts: dict[str, JsonValue] = {}
        if self._insert_keys:
            # Keys are counted, as in Postgres: a key in several chunks was inserted if the table lacked it before.
            inserted = await self._size() - self._rows_before
            [(seen,)] = await self._run(f"SELECT count(*) FROM (SELECT DISTINCT * FROM {_SEEN})")
            counts = {"rows_inserted": inserted, "rows_updated": int(seen) - inserted}
        await self._run("COMMIT")
        return counts

    async def _created(
        self, columns: Sequence[str], types: Sequence[str | None], sample: Sequence[Sequence[Any]]
    ) -> dict[str, str]:
        """Create the table, with a primary key for an upsert. Return the table's columns with their types."""
        found = {
            name: kind or _inferred([row[number] for row in sample])
            for number, (name, kind) in enumerate(zip(columns, types, strict=True))
        }
        if not found:
            missing = f"transfer: target table {self._plan.target.table!r} does not exist"
            raise ConfigurationError(f"{missing}, and without rows its columns are unknown: create it first")
        lines = [f"{identifier(name)} {kind}" for name, kind in found.items()]
        if self._plan.mode == "upsert":
            keys = matched(self._plan.target.table, self._plan.keys, columns)
            if keys:
                lines.append(f"PRIMARY KEY ({', '.join(map(identifier, keys))})")
        await self._run(f"CREATE TABLE {self._table} ({', '.join(lines)})")
        return found

    def _insert_statement(self) -> str:
        columns, keys, names = self._columns, self._keys, self._names()
        values = [_cast(f"r.c{number}", kind) for number, kind in enumerate(self._types)]
        rows = _rows_query(columns)
        if not keys:
            return f"INSERT INTO {self._table} ({names}) SELECT {', '.join(values)} FROM ({rows})"
        parts = ", ".join(values[columns.index(key)] for key in keys)
        latest = f"QUALIFY row_number() OVER (PARTITION BY {parts} ORDER BY place DESC) = 1"
        quoted = ", ".join(map(identifier, keys))
        change = f"UPDATE SET {self._changes('EXCLUDED')}" if len(columns) > len(keys) else "NOTHING"
        return (
            f"INSERT INTO {self._table} ({names}) SELECT {', '.join(values)} FROM "
            f"(SELECT r, row_number() OVER () AS place FROM ({rows})) {latest} "
            f"ON CONFLICT ({quoted}) DO {change}"
        )

    async def _size(self) -> int:
        [(count,)] = await self._run(f"SELECT count(*) FROM {self._table}")
        return int(count)

    async def _run(self, text: str, params: Sequence[Any] | None = None) -> list[Any]:
        return await self._session.execute(f"table {self._plan.target.table}", text, params)


def _rows_query(columns: Sequence[str]) -> str:
    shape = json.dumps([{f"c{number}": "VARCHAR" for number in range(len(columns))}])
    return f"SELECT unnest(from_json(?::JSON, '{shape}')) AS r"


def _is_nested(kind: str) -> bool:
    return _NESTED.fullmatch(kind) is not None and not kind.startswith(("DECIMAL", "ENUM"))


def _cast(value: str, kind: str) -> str:
    """Return SQL that converts a text to the type `kind` of a column. `value` is the SQL expression for the text, which
    is base64 for BLOB, and JSON for JSON and nested types."""
    if kind == "VARCHAR":
        return value
    if kind == "BLOB":
        return f"from_base64({value})"
    return f"CAST(CAST({value} AS JSON) AS {kind})" if _is_nested(kind) else f"CAST({value} AS {kind})"


def _text(value: Any, kind: str) -> str | None:
    if value is None:
        return None
    if kind == "JSON" or _is_nested(kind):
        return json_text(_with_bytes(value) if "BLOB" in kind else value)
    if isinstance(value, JsonText):
        value = without_json(value)
        if value is None:
            return None
    if _INTEGER.fullmatch(kind):
        return _integer_text(value, kind)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if kind == "BLOB":
        return base64.b64encode(str(value).encode()).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"{round(value / datetime.timedelta(microseconds=1))} microseconds"
    return json_text(value) if isinstance(value, (dict, list, tuple)) else str(value)


def _with_bytes(value: Any) -> Any:
    """Return a value with bytes as hexadecimal escapes (`\\xFF`), which DuckDB reads as a BLOB inside JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "".join(f"\\x{byte:02X}" for byte in bytes(value))
    if isinstance(value, dict):
        return {_with_bytes(key): _with_bytes(item) for key, item in value.items()}
    return [_with_bytes(item) for item in value] if isinstance(value, (list, tuple)) else value


def _integer_text(value: Any, kind: str) -> str:
    """Return a whole number as text. Raises ToolError for 1.5, which DuckDB would round to 2."""
    if isinstance(value, bool):
        return str(int(value))
    is_integral = isinstance(value, int) or (isinstance(value, str) and _INTEGER_TEXT.fullmatch(value) is not None)
    if isinstance(value, float):
        is_integral = value.is_integer()
    elif isinstance(value, decimal.Decimal):
        is_integral = value.is_finite() and value == value.to_integral_value()
    if not is_integral:
        raise ToolError(f"{excerpt(str(value), 80)!r} is no {kind}: CAST it in the source", kind="transform")
    return value if isinstance(value, str) else str(int(value))


def _inferred(values: Sequence[Any]) -> str:
    """Return a DuckDB type that can hold all `values` of a column, for a table that has to be created."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int}:
        is_small = all(value is None or -(2**63) <= value < 2**63 for value in values)
        return "BIGINT" if is_small else "HUGEINT"
    if kinds and kinds <= {int, float}:
        return "DOUBLE"
    return "JSON" if kinds and kinds <= {dict, list} else "VARCHAR"
