"""The routes for the variables that a playbook's `set_var` actions write (protocol/executions.md#variables)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from noetl_worker.authoring.dev.database import moment
from noetl_worker.authoring.dev.server.answers import (
    HttpAnswer,
    answer,
    detail,
    invalid,
    required,
    rust_error,
    rust_refused_body,
)
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue

_TYPES = ("user_defined", "step_result", "computed", "iterator_state")


class Variables:
    """The variables of one plane's executions. An unknown execution id is accepted, as by the real planes."""

    def __init__(self, settings: PlaneSettings) -> None:
        self._is_rust = settings.dialect is Dialect.RUST
        self._of_execution: dict[int, dict[str, dict[str, JsonValue]]] = defaultdict(dict)

    def write(self, execution_id: int, body: JsonValue, raw: bytes) -> HttpAnswer:
        return self._write_rust(execution_id, body, raw) if self._is_rust else self._write_python(execution_id, body)

    def _write_python(self, execution_id: int, body: JsonValue) -> HttpAnswer:
        variables = required("variables", body)["variables"]
        if not isinstance(variables, dict):
            raise invalid("dict_type", ["body", "variables"], "Input should be a valid dictionary", variables)
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
            raise rust_refused_body("missing field `variables`", raw)
        if not isinstance(variables, list):
            raise rust_refused_body("variables: invalid type: map, expected a sequence", raw)
        for item in variables:
            kind = item.get("var_type", "user_defined")
            self._put(execution_id, item["var_name"], item.get("var_value"), kind, item.get("source_step"))
        return answer({"execution_id": execution_id, "status": "ok", "variables_set": len(variables)})

    def _put(self, execution_id: int, name: str, value: JsonValue, kind: str, step: str | None) -> None:
        now = moment(time.time(), utc="Z")
        row = {"value": value, "type": kind, "source_step": step}
        new = {**row, "created_at": now, "accessed_at": now, "access_count": 0}
        self._of_execution[execution_id].setdefault(name, new).update(row)

    def read_all(self, execution_id: int) -> HttpAnswer:
        variables = self._of_execution.get(execution_id, {})
        if self._is_rust:
            return answer([_rust_row(name, row) for name, row in variables.items()])
        return answer({"execution_id": execution_id, "variables": variables, "count": len(variables)})

    def read(self, execution_id: int, name: str) -> HttpAnswer:
        row = self._of_execution.get(execution_id, {}).get(name)
        if row is None and self._is_rust:
            return rust_error(404, f"Variable not found: {name} for execution {execution_id}")
        if row is None:
            return detail(404, f"Variable '{name}' not found for execution {execution_id}")
        row.update(access_count=row["access_count"] + 1, accessed_at=moment(time.time(), utc="Z"))
        if self._is_rust:
            return answer(_rust_row(name, row))
        return answer({"execution_id": execution_id, "var_name": name, **row})

    def delete(self, execution_id: int, name: str) -> HttpAnswer:
        found = self._of_execution.get(execution_id, {}).pop(name, None)
        return answer({"execution_id": execution_id, "var_name": name, "deleted": found is not None})

    def delete_all(self, execution_id: int) -> HttpAnswer:
        return answer({"execution_id": execution_id, "deleted_count": len(self._of_execution.pop(execution_id, {}))})


def _rust_row(name: str, row: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    plain = dict(row)
    return {"var_name": name, "var_type": plain.pop("type"), "var_value": plain.pop("value"), **plain}
