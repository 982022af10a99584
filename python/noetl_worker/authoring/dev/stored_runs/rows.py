"""Conversion of a run of `noetl-worker dev` to database rows without secrets, and the loading of such rows.

The rows are stored on disk. Later, CLI commands such as `report` load the rows into a new development plane, and read
the run there.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from noetl_worker.authoring.dev.database import insert_into
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.server.catalog import CatalogEntry
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.authoring.dev.stored_runs.runs import StoredRow
from noetl_worker.engine import chosen as engine
from noetl_worker.models.fit import FitRules
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.json_text import dumps, embed, loads
from noetl_worker.text.secrets.known import KnownSecrets

_EXECUTIONS: Final = "executions"
_CATALOG: Final = "catalog"
_RESULTS: Final = "results"
_TABLES: Final = {"commands": "command_ref", "events": "event_id"}
"""Database tables of the development plane whose rows of an execution are copied into a stored run, with the name of
each table's id column."""
_FIELDS: Final = (
    "execution_id", "catalog_id", "path", "version", "workload", "parent_execution_id", "started_at", "status",
    "stands_still", "ended_at", "error", "is_failed",
)  # fmt: skip
_NO_PLAYBOOK: Final = Playbook(path="", workload={}, steps={})
"""Empty playbook for an execution from storage. Its real playbook is not needed, since no step is run again."""
_NO_LIMIT: Final = 1 << 40
"""Size limit in bytes that no row reaches, so that redaction, which also shortens large values, shortens nothing."""


def rows_to_store(
    plane: DevControlPlane, execution: Execution, credentials: Iterable[Mapping[str, JsonValue]]
) -> Iterator[StoredRow]:
    """Yield all data of an execution and of its child executions as rows to store, with secrets redacted.

    The rows contain the executions, their playbooks, commands, events and stored results.

    Args:
        credentials: the data of each credential that the run could use; these values are redacted.
    """
    family = [execution]
    for member in family:
        family += plane.executions.children(member.execution_id)
    playbooks = {member.catalog_id: plane.catalog.find(catalog_id=member.catalog_id) for member in family}
    documents = {catalog_id: parse_yaml(entry.content) for catalog_id, entry in playbooks.items() if entry is not None}
    known = KnownSecrets()
    for data in credentials:
        known.add_credential(data)
    for value in (*documents.values(), *(member.workload for member in family)):
        known.add_inline(value)
    rules = FitRules.for_secrets(known.texts(), max_bytes=_NO_LIMIT)

    def row(kind: str, name: object, columns: Mapping[str, JsonValue]) -> StoredRow:
        """Make a redacted row. Columns of bytes (JSON) are stored under `json`, all other columns under `plain`."""
        value = {key: embed(item) for key, item in columns.items() if isinstance(item, bytes)}
        plain = {key: item for key, item in columns.items() if key not in value}
        return StoredRow(kind, str(name), engine.fit_result(dumps({"plain": plain, "json": value}), rules).body)

    for catalog_id, entry in playbooks.items():
        if entry is not None:
            yield row(_CATALOG, catalog_id, {**entry._asdict(), "content": dumps(documents[catalog_id])})
    for member in family:
        fields = {name: getattr(member, name) for name in _FIELDS}
        yield row(_EXECUTIONS, member.execution_id, {"dialect": plane.dialect.value, **fields})
        for table, key in _TABLES.items():
            query = f"SELECT * FROM {table} WHERE execution_id = ?"
            for found in plane.log.db.execute(query, (member.execution_id,)):
                yield row(table, found[key], dict(found))
        for result in plane.results.execution_results(member.execution_id):
            yield row(_RESULTS, result["ref"], result)


@asynccontextmanager
async def serve_stored_run(rows: Sequence[StoredRow]) -> AsyncIterator[DevControlPlane]:
    """Start a development plane that has only the stored run, and yield the plane.

    The plane has a port of its own, requires a token, and does not use NATS.
    """
    read: list[tuple[str, dict[str, Any]]] = [(row.kind, loads(row.contents)) for row in rows]
    dialect = Dialect(next(value["plain"].pop("dialect") for kind, value in read if kind == _EXECUTIONS))
    async with DevControlPlane(PlaneSettings(dialect=dialect, token=secrets.token_urlsafe())) as plane:
        for kind, value in read:
            plain, nested = value["plain"], {name: dumps(item) for name, item in value["json"].items()}
            if kind == _EXECUTIONS:
                plain.pop("dialect", None)
                plane.executions.restore(Execution(playbook=_NO_PLAYBOOK, payload={}, **plain))
            elif kind == _CATALOG:
                plane.catalog.restore(CatalogEntry(**plain, content=nested["content"].decode()))
            elif kind == _RESULTS:
                plane.results.restore({**plain, **value["json"], "data": nested["data"]})
            else:
                columns = {**plain, **nested}
                plane.log.db.execute(insert_into(kind, tuple(columns)), tuple(columns.values()))
        yield plane
