"""The runtime registry: which workers say they are alive (protocol/registry.md#registration)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.dev.database import Ids, moment
from noetl_worker.dev.routes.answers import HttpAnswer, answer, detail, invalid, missing, rust_error, rust_refused_body
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.json_text import dumps, loads
from noetl_worker.models.wire import Dialect, JsonValue

KIND: Final = "worker_pool"
UNKNOWN_RETRY_AFTER_S: Final = 3
_DEFAULT_NAME: Final = "worker-cpu"
"""What the Python plane takes for a heartbeat without a name (recorded: runtime-heartbeat-missing-name)."""
_NO_NAME: Final = (
    "1 validation error for RuntimeDeregistrationRequest\nname\n  Input should be a valid string"
    " [type=string_type, input_value=None, input_type=NoneType]"
)


class RuntimeRegistry:
    """Runtime rows of one plane, and the answers of its registry routes."""

    def __init__(self, settings: PlaneSettings, db: sqlite3.Connection, ids: Ids) -> None:
        self._settings, self._db, self._ids = settings, db, ids
        self._is_rust = settings.dialect is Dialect.RUST

    def register(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        if refused := self._refuse_registration(body, raw):
            return refused
        now, name = time.time(), body["name"]
        runtime = body.get("runtime")
        if not self._is_rust:
            runtime = {
                "pid": None,  # recorded: the real plane loses it
                "type": str(runtime) if runtime is not None else None,
                "hostname": body.get("hostname"),
            }
        values = (
            str(body.get("status") or ("active" if self._is_rust else "ready")).lower(),
            dumps(runtime),
            dumps(body.get("labels")),
            dumps(body.get("capabilities")),
            body.get("capacity"),
            body.get("uri") or body.get("base_url"),
            body.get("hostname"),
        )
        self._db.execute(
            "INSERT INTO runtimes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " status = excluded.status, runtime = excluded.runtime, labels = excluded.labels,"
            " capabilities = excluded.capabilities, capacity = excluded.capacity, uri = excluded.uri,"
            " hostname = excluded.hostname, heartbeat = excluded.heartbeat, updated_at = excluded.updated_at",
            (name, self._ids.snowflake(), *values, now, now, now),
        )
        row = self._row(name)
        assert row is not None
        if self._is_rust:
            return answer(self._rust_row(row))
        shown = body.get("runtime")
        return answer(
            {
                "status": "ok",
                "name": name,
                "runtime_id": str(row["runtime_id"]),
                "runtime": shown if shown is None or isinstance(shown, str) else str(shown),
                "kind": KIND,
            }
        )

    def _refuse_registration(self, body: JsonValue, raw: bytes) -> HttpAnswer | None:
        if self._is_rust:
            return _rust_refusal(body, raw)
        if not isinstance(body, dict) or "name" not in body:
            return missing("name", body)
        for key in ("kind", "component_type"):
            if body.get(key, KIND) != KIND:
                return invalid(
                    "literal_error", ["body", key], f"Input should be '{KIND}'", body[key], {"expected": f"'{KIND}'"}
                )
        return None

    def heartbeat(self, body: JsonValue) -> HttpAnswer:
        given = body if isinstance(body, dict) else {}
        name = given.get("name") or _DEFAULT_NAME
        row = self._row(name)
        registration = given.get("registration")
        if row is None and not self._is_rust and isinstance(registration, dict):
            self.register({**registration, "name": name}, b"")
            return detail(500, "0")  # recorded: the row is made, and the answer fails all the same
        if row is None:
            if self._is_rust:
                return rust_error(404, f"Runtime not found: {KIND} {name}")
            unknown = {"status": "unknown", "name": name}
            return detail(404, unknown, retry_after_s=UNKNOWN_RETRY_AFTER_S)
        status = row["status"] if self._is_rust else "ready"
        now = time.time()
        self._db.execute(
            "UPDATE runtimes SET heartbeat = ?, updated_at = ?, status = ? WHERE name = ?", (now, now, status, name)
        )
        if self._is_rust:
            return answer({"status": "ok", "message": "Heartbeat recorded"})
        return answer({"status": "ok", "name": name, "runtime_id": None, "runtime": None})

    def deregister(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        if self._is_rust:
            if refused := _rust_refusal(body, raw):
                return refused
            done = self._db.execute("DELETE FROM runtimes WHERE name = ?", (body["name"],)).rowcount
            if not done:
                return rust_error(404, f"Runtime not found: {KIND} {body['name']}")
            return answer({"status": "ok", "message": f"Runtime {KIND} {body['name']} deregistered"})
        if not raw:
            return detail(500, "Expecting value: line 1 column 1 (char 0)")
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            return detail(500, _NO_NAME)
        name = body["name"]
        self._db.execute("UPDATE runtimes SET status = 'offline', updated_at = ? WHERE name = ?", (time.time(), name))
        return answer({"status": "ok", "name": name, "runtime_id": None, "runtime": None, "kind": KIND})

    def pools(self) -> HttpAnswer:
        rows = self._db.execute("SELECT * FROM runtimes ORDER BY name").fetchall()
        if self._is_rust:
            return answer([self._rust_row(row) for row in rows])
        items = [
            {
                "name": row["name"],
                "runtime": loads(row["runtime"]),
                "status": "offline" if self._is_stale(row, self._settings.worker_stale_s) else row["status"],
                "capacity": None,
                "labels": None,
                "heartbeat": moment(row["heartbeat"]),
                "created_at": moment(row["created_at"]),
                "updated_at": moment(row["updated_at"]),
            }
            for row in rows
        ]
        return answer({"items": items, "count": len(items), "runtime": None, "status": None, "error": None})

    # ── for claims and the reaper ───────────────────────────────────────────────────────────────

    def why_lost(self, name: str | None, stale_s: float) -> str | None:
        """Why the holder of a claim counts as gone; None while it is ready and heard of."""
        row = self._row(name)
        if row is None:
            return "worker_missing"
        if row["status"] != "ready":
            return "worker_inactive"
        return "worker_heartbeat_stale" if self._is_stale(row, stale_s) else None

    def _is_stale(self, row: sqlite3.Row, stale_s: float) -> bool:
        return bool(time.time() - row["heartbeat"] > stale_s)

    def _row(self, name: JsonValue) -> sqlite3.Row | None:
        found = self._db.execute("SELECT * FROM runtimes WHERE name = ?", (name,)).fetchone()
        assert found is None or isinstance(found, sqlite3.Row)
        return found

    def _rust_row(self, row: sqlite3.Row) -> Mapping[str, JsonValue]:
        return {
            "runtime_id": row["runtime_id"],
            "name": row["name"],
            "kind": KIND,
            "uri": row["uri"],
            "status": row["status"],
            "labels": loads(row["labels"]),
            "capabilities": loads(row["capabilities"]),
            "capacity": row["capacity"],
            "runtime": loads(row["runtime"]),
            "heartbeat": moment(row["heartbeat"], utc="Z"),
            "created_at": moment(row["created_at"], utc="Z"),
            "updated_at": moment(row["updated_at"], utc="Z"),
        }


def _rust_refusal(body: JsonValue, raw: bytes) -> HttpAnswer | None:
    """`kind` and `component_type` are one field there (recorded: register-both-kind-and-component-type)."""
    if not isinstance(body, dict):
        return rust_refused_body("EOF while parsing a value", raw)
    if "kind" in body and "component_type" in body:
        return rust_refused_body("duplicate field `kind`", raw)
    if "name" not in body:
        return rust_refused_body("missing field `name`", raw)
    return None
