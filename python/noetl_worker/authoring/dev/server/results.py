"""The result store: values that are too large for an event or a command (protocol/results.md#store)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.database import Ids, moment
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer, detail, missing
from noetl_worker.authoring.dev.server.stored_form import as_stored
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.json_text import dumps, loads

DEFAULT_TTL_S: Final = 3600.0
_TTL_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_INLINE: Final = 8_192
"""Size in bytes above which a field of a command goes to the result store. The command then has a reference in place of
the field."""
_STORES: Final = ("kv", "memory", "db")
_FIELDS: Final = ("spec", "input", "tool_config", "render_context")


class Results:
    """The result store of one plane, in memory."""

    def __init__(self, settings: PlaneSettings, ids: Ids) -> None:
        self._ids = ids
        self._is_rust = settings.dialect is Dialect.RUST
        self._by_ref: dict[str, dict[str, JsonValue]] = {}
        self._newest: dict[tuple[int, str], dict[str, JsonValue]] = {}
        """The newest result under each result name of an execution, by (execution id, result name)."""

    # ── routes ──────────────────────────────────────────────────────────────────────────────────

    def put_route(self, execution_id: int, body: Mapping[str, JsonValue]) -> HttpAnswer:
        """Answer PUT /result/{execution_id}: store a value, and return the reference to the value."""
        for required in ("name", "data"):
            if required not in body:
                raise missing(required, dict(body))
        store = body.get("store") or "kv"
        scope = body.get("scope") or "execution"
        if not self._is_rust and store not in _STORES:
            return detail(400, f"Invalid store tier: {store}")
        if not self._is_rust and scope == "step" and not body.get("source_step"):
            return detail(500, "step_name required for step-scoped refs")
        expires_at = None if self._is_rust or scope == "permanent" else time.time() + _ttl_s(body.get("ttl"))
        kept = "db" if self._is_rust else ("kv" if store == "db" else store)
        return answer(_about(self._put(execution_id, body, store=kept, scope=scope, expires_at=expires_at)))

    def resolve_route(self, ref: str | None) -> HttpAnswer:
        """Answer GET /result/resolve?ref= with the data that the reference `ref` names.

        If `ref` does not begin with `noetl://`, answer with the text of `ref` (recorded).
        """
        if ref is None:
            raise missing("ref", None, where="query")
        if not ref.startswith("noetl://"):
            return answer(ref)
        data = self.find(ref)
        return HttpAnswer(200, data) if data is not None else self._not_found(f"'TempRef not found: {ref}'")

    def get_route(self, execution_id: int, step: str, *, is_resolved: bool) -> HttpAnswer:
        """Answer GET /result/{execution_id}/{step} with the newest result whose name is `step`.

        Args:
            is_resolved: True answers with the data, False with facts about the data and a preview.
        """
        row = self._newest.get((execution_id, step))
        if row is None:
            return self._not_found(f"Result not found for step: {step}")
        if is_resolved:
            return HttpAnswer(200, row["data"])
        extra = {key: row[key] for key in ("name", "extracted", "correlation")}
        return answer({**_about(row), **extra, "preview": _preview(loads(row["data"]))})

    def _not_found(self, said: str) -> HttpAnswer:
        return HttpAnswer(404, b"", "text/plain") if self._is_rust else detail(404, said)

    # ── for the plane itself ────────────────────────────────────────────────────────────────────

    def find(self, ref: str) -> bytes | None:
        """Return the stored JSON of a reference, or None for an unknown reference."""
        row = self._by_ref.get(ref)
        return row["data"] if row is not None else None

    def execution_results(self, execution_id: int) -> list[Mapping[str, JsonValue]]:
        return [row for row in self._by_ref.values() if row["execution_id"] == execution_id]

    def restore(self, row: dict[str, JsonValue]) -> None:
        """Add a result to this store: a new result, or a result of a finished run of `dev` that was stored on disk.

        Args:
            row: the result with its reference, name and other facts. `data` is the result as JSON in bytes.
        """
        self._by_ref[row["ref"]] = self._newest[row["execution_id"], row["name"]] = row

    def externalise(
        self, context: Mapping[str, JsonValue], *, execution_id: int, step: str, command_id: JsonValue
    ) -> Mapping[str, JsonValue]:
        """Return a command's context with references in place of fields above 8 KiB (protocol/command.md#python-plane).

        The result store keeps the replaced fields. A field's size is the size of its JSON with spaces after separators
        (recorded: view-seq-http, names-list).
        """
        replaced: dict[str, JsonValue] = {}
        for name in _FIELDS:
            if name in context and (size := len(_spaced(context[name]))) > _MOST_INLINE:
                correlation = {
                    "kind": "command_context_field", "step": step, "field": name, "command_id": command_id,
                }  # fmt: skip
                body = {"name": f"{step}_{name}", "data": context[name], "correlation": correlation}
                replaced[name] = self._reference(execution_id, body, size)
        return {**context, **replaced} if replaced else context

    def _reference(self, execution_id: int, body: Mapping[str, JsonValue], size: int) -> dict[str, JsonValue]:
        row = self._put(execution_id, body, store="kv", scope="execution", expires_at=None)
        meta = {
            "bytes": size,
            "sha256": row["sha256"],
            "encoding": "utf-8",
            "row_count": None,
            "created_at": moment(time.time(), utc="Z"),
            "media_type": None,
            "accessed_at": None,
            "compression": "none",
            "access_count": 0,
            "content_type": "application/json",
            "schema_digest": None,
        }
        return {
            "ref": row["ref"],
            "kind": "result_ref",
            "meta": meta,
            "scope": "execution",
            "store": "kv",
            "correlation": body["correlation"],
        }

    def _put(
        self,
        execution_id: int,
        body: Mapping[str, JsonValue],
        *,
        store: str,
        scope: str,
        expires_at: float | None,
    ) -> Mapping[str, JsonValue]:
        data = dumps(body["data"] if self._is_rust else as_stored(body["data"]))
        row = {
            "ref": self._new_ref(execution_id, body["name"]),
            "execution_id": execution_id,
            "name": str(body["name"]),
            "data": data,
            "store": store,
            "scope": scope,
            "expires_at": expires_at,
            "sha256": hashlib.sha256(data).hexdigest(),
            "extracted": body.get("extracted"),
            "correlation": body.get("correlation"),
        }
        self.restore(row)
        return row

    def _new_ref(self, execution_id: int, name: JsonValue) -> str:
        """Make an unused reference. The Python plane's references end in a 32-bit hash, so two could be the same."""
        while True:
            tail = str(self._ids.next())
            if not self._is_rust:
                tail = hashlib.sha256(tail.encode()).hexdigest()[:8]
            ref = f"noetl://execution/{execution_id}/result/{name}/{tail}"
            if ref not in self._by_ref:
                return ref


def _about(row: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "ref": row["ref"],
        "store": row["store"],
        "scope": row["scope"],
        "expires_at": moment(row["expires_at"]),
        "bytes": len(row["data"]),
        "sha256": row["sha256"],
    }


def _spaced(value: JsonValue) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _ttl_s(ttl: JsonValue) -> float:
    """Return the seconds of a lifetime such as "2h". Any other value gives an hour, as on the real plane."""
    if isinstance(ttl, str) and ttl[:-1].isdecimal() and ttl[-1] in _TTL_UNITS:
        return int(ttl[:-1]) * _TTL_UNITS[ttl[-1]]
    return DEFAULT_TTL_S


def _preview(data: JsonValue) -> JsonValue:
    if isinstance(data, dict):
        return {key: f"[{len(item)} items]" if isinstance(item, list) else item for key, item in data.items()}
    return f"[{len(data)} items]" if isinstance(data, list) else data
