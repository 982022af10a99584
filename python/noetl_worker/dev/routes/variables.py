"""Variables of an execution, as `set_var` writes them (protocol/executions.md#variables)."""

from __future__ import annotations

import sqlite3
import time

from noetl_worker.dev.database import moment
from noetl_worker.dev.routes.answers import HttpAnswer, answer, detail, invalid, missing, rust_error, rust_refused_body
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.json_text import dumps, loads
from noetl_worker.models.wire import Dialect, JsonValue

_TYPES = ("user_defined", "step_result", "computed", "iterator_state")


class Variables:
    """The variable store of one plane. Unknown execution ids are accepted, as the real planes do."""

    def __init__(self, settings: PlaneSettings, db: sqlite3.Connection) -> None:
        self._db = db
        self._is_rust = settings.dialect is Dialect.RUST

    def write(self, execution_id: int, body: JsonValue, raw: bytes) -> HttpAnswer:
        return self._write_rust(execution_id, body, raw) if self._is_rust else self._write_python(execution_id, body)

    def _write_python(self, execution_id: int, body: JsonValue) -> HttpAnswer:
        if not isinstance(body, dict) or "variables" not in body:
            return missing("variables", body)
        variables = body["variables"]
        if not isinstance(variables, dict):
            return invalid("dict_type", ["body", "variables"], "Input should be a valid dictionary", variables)
        if not variables:
            return detail(400, "Request body must contain 'variables' dict with at least one variable")
        kind = body.get("var_type", "user_defined")
        if kind not in _TYPES:
            return detail(400, f"Invalid var_type '{kind}'")
        for name, value in variables.items():
            self._put(execution_id, name, value, kind, body.get("source_step"))
        names = list(variables)
        return answer({"execution_id": execution_id, "variables_set": len(names), "var_names": names})

    def _write_rust(self, execution_id: int, body: JsonValue, raw: bytes) -> HttpAnswer:
        variables = body.get("variables") if isinstance(body, dict) else None
        if variables is None:
            return rust_refused_body("missing field `variables`", raw)
        if not isinstance(variables, list):
            return rust_refused_body("variables: invalid type: map, expected a sequence", raw)
        for item in variables:
            kind = item.get("var_type", "user_defined")
            self._put(execution_id, item["var_name"], item.get("var_value"), kind, item.get("source_step"))
        return answer({"execution_id": execution_id, "status": "ok", "variables_set": len(variables)})

    def _put(self, execution_id: int, name: str, value: JsonValue, kind: str, step: str | None) -> None:
        now = time.time()
        self._db.execute(
            "INSERT INTO variables VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (execution_id, name) DO UPDATE SET"
            " value = excluded.value, type = excluded.type, source_step = excluded.source_step",
            (execution_id, name, dumps(value), kind, step, now, now),
        )

    def read_all(self, execution_id: int) -> HttpAnswer:
        rows = self._db.execute(
            "SELECT * FROM variables WHERE execution_id = ? ORDER BY created_at, name", (execution_id,)
        ).fetchall()
        if self._is_rust:
            return answer([_rust_row(row) for row in rows])
        variables = {row["name"]: _python_row(row) for row in rows}
        return answer({"execution_id": execution_id, "variables": variables, "count": len(variables)})

    def read(self, execution_id: int, name: str) -> HttpAnswer:
        self._db.execute(
            "UPDATE variables SET access_count = access_count + 1, accessed_at = ? WHERE execution_id = ? AND name = ?",
            (time.time(), execution_id, name),
        )
        row = self._db.execute(
            "SELECT * FROM variables WHERE execution_id = ? AND name = ?", (execution_id, name)
        ).fetchone()
        if row is None and self._is_rust:
            return rust_error(404, f"Variable not found: {name} for execution {execution_id}")
        if row is None:
            return detail(404, f"Variable '{name}' not found for execution {execution_id}")
        if self._is_rust:
            return answer(_rust_row(row))
        return answer({"execution_id": execution_id, "var_name": name, **_python_row(row)})

    def delete(self, execution_id: int, name: str) -> HttpAnswer:
        done = self._db.execute(
            "DELETE FROM variables WHERE execution_id = ? AND name = ?", (execution_id, name)
        ).rowcount
        return answer({"execution_id": execution_id, "var_name": name, "deleted": bool(done)})

    def delete_all(self, execution_id: int) -> HttpAnswer:
        done = self._db.execute("DELETE FROM variables WHERE execution_id = ?", (execution_id,)).rowcount
        return answer({"execution_id": execution_id, "deleted_count": done})


def _python_row(row: sqlite3.Row) -> dict[str, JsonValue]:
    return {
        "value": loads(row["value"]),
        "type": row["type"],
        "source_step": row["source_step"],
        "created_at": moment(row["created_at"], utc="Z"),
        "accessed_at": moment(row["accessed_at"], utc="Z"),
        "access_count": row["access_count"],
    }


def _rust_row(row: sqlite3.Row) -> dict[str, JsonValue]:
    return {
        "var_name": row["name"],
        "var_type": row["type"],
        "var_value": loads(row["value"]),
        "source_step": row["source_step"],
        "created_at": moment(row["created_at"], utc="Z"),
        "accessed_at": moment(row["accessed_at"], utc="Z"),
        "access_count": row["access_count"],
    }
