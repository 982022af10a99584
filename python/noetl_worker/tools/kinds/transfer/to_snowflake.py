"""A Snowflake table as the target of a transfer, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.kinds.snowflake import snowflake
from noetl_worker.tools.kinds.transfer.plan import (
    TransferPlan,
    Writer,
    check_keys,
    identifier,
    json_text,
    table_parts,
    without_json,
)

_STAGE: Final = '"NOETL_TRANSFER_STAGE"'
_PLACE: Final = '"NOETL_PLACE"'


@asynccontextmanager
async def snowflake_writer(plan: TransferPlan, context: ToolContext, duckdb: Duckdb) -> AsyncIterator[SnowflakeWriter]:
    """Open the target's session for this transfer alone. Closing the session rolls back a transfer that is not
    committed."""
    settings = await snowflake.connection_settings("transfer: target", plan.target, context, context.timeout_s)
    async with snowflake.session({**settings, "autocommit": False}) as session:
        yield SnowflakeWriter(plan, session)


class SnowflakeWriter(Writer):
    """A writer whose upsert uses a temporary table and MERGE. VARIANT columns in the target are not supported."""

    def __init__(self, plan: TransferPlan, session: snowflake.SnowflakeSession) -> None:
        super().__init__(plan)
        self._session = session
        self._table = ".".join(map(_name, table_parts(plan.target.table)))
        self._written = 0

    async def begin(self, columns: Sequence[str], types: Sequence[str | None], sample: Sequence[Sequence[Any]]) -> None:
        del types, sample
        _, described = await self._session.query(f"SELECT * FROM {self._table} LIMIT 0")
        self._match(columns, [column.name for column in described])
        if self._keys:
            # Before BEGIN: in Snowflake, creating a table commits.
            await self._session.query(
                f"CREATE OR REPLACE TEMPORARY TABLE {_STAGE} AS SELECT {self._names()}, 0 AS {_PLACE} "
                f"FROM {self._table} LIMIT 0"
            )
        await self._session.query("BEGIN")
        if self._plan.mode == "replace":
            await self._session.query(f"DELETE FROM {self._table}")

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        adapted = [
            [json_text(value) if isinstance(value, (dict, list)) else without_json(value) for value in row]
            for row in rows
        ]
        for row in adapted:
            check_keys(row, self._columns, self._keys)
        marks = ", ".join(["%s"] * (len(self._columns) + bool(self._keys)))
        if self._keys:
            adapted = [[*row, self._written + number] for number, row in enumerate(adapted)]
            await self._session.many(f"INSERT INTO {_STAGE} ({self._names()}, {_PLACE}) VALUES ({marks})", adapted)
        else:
            await self._session.many(f"INSERT INTO {self._table} ({self._names()}) VALUES ({marks})", adapted)
        self._written += len(rows)

    async def commit(self) -> Mapping[str, JsonValue]:
        counts: dict[str, JsonValue] = {}
        if self._keys:
            cursor, _ = await self._session.query(self._merge())
            [[inserted, updated, *_]] = [*await self._session.fetch(cursor, 1), [0, 0]][:1]
            counts = {"rows_inserted": int(inserted), "rows_updated": int(updated)}
        await self._session.query("COMMIT")
        return counts

    def _merge(self) -> str:
        keys = ", ".join(map(identifier, self._keys))
        on = " AND ".join(f"t.{identifier(key)} = s.{identifier(key)}" for key in self._keys)
        values = ", ".join(f"s.{identifier(column)}" for column in self._columns)
        latest = f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_PLACE} DESC) = 1"
        return (
            f"MERGE INTO {self._table} t USING (SELECT * FROM {_STAGE} {latest}) s ON {on} "
            f"WHEN NOT MATCHED THEN INSERT ({self._names()}) VALUES ({values}) "
            f"WHEN MATCHED THEN UPDATE SET {self._changes('s')}"
        )


def _name(part: str) -> str:
    """Return a plain name unchanged, so that Snowflake turns it into capitals. Return any other name quoted."""
    return part if part.isidentifier() else identifier(part)
