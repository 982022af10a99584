"""The runtime registry: the workers that have registered and send heartbeats (protocol/registry.md#registration)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.database import Ids, moment
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
from noetl_worker.models.wire import Dialect, JsonValue, fields_of

KIND: Final = "worker_pool"
UNKNOWN_RETRY_AFTER_S: Final = 3
_DEFAULT_NAME: Final = "worker-cpu"
"""Name that the Python plane gives a worker whose heartbeat has no name (recorded: runtime-heartbeat-missing-name)."""
_NO_NAME: Final = (
    "1 validation error for RuntimeDeregistrationRequest\nname\n  Input should be a valid string"
    " [type=string_type, input_value=None, input_type=NoneType]"
)


class RuntimeRegistry:
    """The registered workers of one plane, and the answers of the registry's routes."""

    def __init__(self, settings: PlaneSettings, ids: Ids) -> None:
        self._settings, self._ids = settings, ids
        self._is_rust = settings.dialect is Dialect.RUST
        self.runtimes: Final[dict[str, dict[str, JsonValue]]] = {}
        """The row of each registered worker, by its name."""

    def register(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        self._check_registration(body, raw)
        now, name = time.time(), body["name"]
        runtime = body.get("runtime")
        if not self._is_rust:
            runtime = {
                "pid": None,  # recorded: the real plane loses it
                "type": str(runtime) if runtime is not None else None,
                "hostname": body.get("hostname"),
            }
        before = self.runtimes.get(name, {"runtime_id": self._ids.snowflake(), "created_at": now})
        row = {
            "runtime_id": before["runtime_id"],
            "name": name,
            "kind": KIND,
            "uri": body.get("uri") or body.get("base_url"),
            "status": str(body.get("status") or ("active" if self._is_rust else "ready")).lower(),
            "labels": body.get("labels"),
            "capabilities": body.get("capabilities"),
            "capacity": body.get("capacity"),
            "runtime": runtime,
            "heartbeat": now,
            "created_at": before["created_at"],
            "updated_at": now,
        }
        self.runtimes[name] = row
        if self._is_rust:
            return answer({**row, **_times(row, utc="Z")})
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

    def _check_registration(self, body: JsonValue, raw: bytes) -> None:
        if self._is_rust:
            _check_rust(body, raw)
            return
        given = required("name", body)
        for key in ("kind", "component_type"):
            if (kind := given.get(key, KIND)) != KIND:
                text, context = f"Input should be '{KIND}'", {"expected": f"'{KIND}'"}
                raise invalid("literal_error", ["body", key], text, kind, context)

    def heartbeat(self, body: JsonValue) -> HttpAnswer:
        given = fields_of(body)
        name = given.get("name") or _DEFAULT_NAME
        row = self.runtimes.get(name)
        registration = given.get("registration")
        if row is None and not self._is_rust and isinstance(registration, dict):
            self.register({**registration, "name": name}, b"")
            return detail(500, "0")  # recorded: the plane registers the worker, and still answers with 500
        if row is None:
            if self._is_rust:
                return rust_error(404, f"Runtime not found: {KIND} {name}")
            unknown = {"status": "unknown", "name": name}
            return detail(404, unknown, retry_after_s=UNKNOWN_RETRY_AFTER_S)
        now = time.time()
        row.update(heartbeat=now, updated_at=now)
        if self._is_rust:
            return answer({"status": "ok", "message": "Heartbeat recorded"})
        row["status"] = "ready"
        return answer({"status": "ok", "name": name, "runtime_id": None, "runtime": None})

    def deregister(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        if self._is_rust:
            _check_rust(body, raw)
            if self.runtimes.pop(body["name"], None) is None:
                return rust_error(404, f"Runtime not found: {KIND} {body['name']}")
            return answer({"status": "ok", "message": f"Runtime {KIND} {body['name']} deregistered"})
        if not raw:
            return detail(500, "Expecting value: line 1 column 1 (char 0)")
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            return detail(500, _NO_NAME)
        name = body["name"]
        if name in self.runtimes:
            self.runtimes[name].update(status="offline", updated_at=time.time())
        return answer({"status": "ok", "name": name, "runtime_id": None, "runtime": None, "kind": KIND})

    def pools(self) -> HttpAnswer:
        rows = [row for _, row in sorted(self.runtimes.items())]
        if self._is_rust:
            return answer([{**row, **_times(row, utc="Z")} for row in rows])
        items = [
            {
                "name": row["name"],
                "runtime": row["runtime"],
                "status": "offline" if _is_stale(row, self._settings.worker_stale_s) else row["status"],
                "capacity": None,
                "labels": None,
                **_times(row, utc="+00:00"),
            }
            for row in rows
        ]
        return answer({"items": items, "count": len(items), "runtime": None, "status": None, "error": None})

    # ── for claims and the reaper ───────────────────────────────────────────────────────────────

    def why_lost(self, name: str | None, stale_s: float) -> str | None:
        """Return why the worker that holds a claim is lost; None while the worker is ready and sends heartbeats.

        Args:
            stale_s: seconds after the last heartbeat from which a worker counts as lost.
        """
        row = self.runtimes.get(name or "")
        if row is None:
            return "worker_missing"
        if row["status"] != "ready":
            return "worker_inactive"
        return "worker_heartbeat_stale" if _is_stale(row, stale_s) else None


def _is_stale(row: Mapping[str, JsonValue], stale_s: float) -> bool:
    return bool(time.time() - row["heartbeat"] > stale_s)


def _times(row: Mapping[str, JsonValue], *, utc: str) -> dict[str, JsonValue]:
    return {key: moment(row[key], utc=utc) for key in ("heartbeat", "created_at", "updated_at")}


def _check_rust(body: JsonValue, raw: bytes) -> None:
    """Raise Refused if the Rust plane would refuse the body of a registration or heartbeat.

    The Rust plane treats `kind` and `component_type` as one field (recorded: register-both-kind-and-component-type).
    """
    if not isinstance(body, dict):
        raise rust_refused_body("EOF while parsing a value", raw)
    if "kind" in body and "component_type" in body:
        raise rust_refused_body("duplicate field `kind`", raw)
    if "name" not in body:
        raise rust_refused_body("missing field `name`", raw)
