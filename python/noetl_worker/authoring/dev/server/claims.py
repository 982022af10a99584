"""The answers to claims, for both planes. A claim's answer decides whether the worker runs the command
(protocol/claim.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.event_log import CommandRow, EventLog
from noetl_worker.authoring.dev.server.answers import (
    HttpAnswer,
    detail,
    invalid,
    required,
    rust_error,
    rust_refused_body,
)
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.authoring.dev.server.registry import RuntimeRegistry
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.json_text import dumps, embed

HARD_TIMEOUT_S: Final = 1800.0
"""Age of a claim, in seconds, from which the Python plane lets another worker take the command
(protocol/claim.md#leases)."""


class Claims:
    """Decides who may run a command.

    On the Python plane a claim is a lease. For the first `claim_lease_s` seconds, only the claim's holder may run the
    command. Later another worker may take the command if the holder is lost: not registered, not ready, or without
    heartbeats. After `HARD_TIMEOUT_S` another worker may always take the command. A cache remembers recent claims: for
    `claims_cache_ttl_s` seconds, other workers are refused without these checks. On the Rust plane a claim is for ever,
    and the holder may repeat the claim.
    """

    def __init__(
        self, settings: PlaneSettings, log: EventLog, registry: RuntimeRegistry, executions: Executions
    ) -> None:
        self._settings, self._log, self._registry, self._executions = settings, log, registry, executions
        self._cache: dict[int, tuple[str, float]] = {}
        self._held: set[int] = set()

    def hold(self, event_id: int) -> None:
        """Refuse claims of a command until `release` is called, as if another worker held it. Only tests call this."""
        self._held.add(event_id)

    def release(self, event_id: int) -> None:
        self._held.discard(event_id)

    def claim(self, event_id: int, worker_id: str) -> HttpAnswer:
        row = self._log.command(event_id)
        if self._settings.dialect is Dialect.RUST:
            return self._claim_rust(event_id, row, worker_id)
        if row is None:
            return detail(404, f"command not found: {event_id}")
        if (ended := self._why_ended(row)) is not None:
            return detail(409, {"code": "already_terminal", "message": ended})
        holder, until = self._cache.get(event_id, (worker_id, 0.0))
        if holder != worker_id and until >= time.monotonic():
            message = f"Command already claimed by {holder}"
            return self._busy(message=message, worker_id=holder, claim_policy="cache_fast_path")
        if event_id in self._held:
            return self._busy(message="Command is being claimed")
        return self._claim_python(row, worker_id)

    # ── Python plane ────────────────────────────────────────────────────────────────────────────

    def _why_ended(self, row: CommandRow) -> str | None:
        if not row.is_open:
            return f"Command status: {row.status}"
        execution = self._executions.get(row.execution_id)
        is_over = execution is not None and execution.is_over
        return "Execution already reached terminal state" if is_over else None

    def _claim_python(self, row: CommandRow, worker_id: str) -> HttpAnswer:
        meta: dict[str, JsonValue] = {"worker_id": worker_id}
        if row.worker_id is not None:
            age_s = time.time() - (row.claimed_at or 0)
            is_expired = age_s >= HARD_TIMEOUT_S
            if row.worker_id == worker_id:
                if row.status == "RUNNING" and not is_expired:
                    return self._busy(worker_status="running")
                if row.status == "CLAIMED":
                    return self._claimed(row)
            reason = self._why_reclaimed(row.worker_id, age_s, is_expired)
            if reason is None:
                self._remember(row.event_id, row.worker_id)
                return self._busy(worker_id=row.worker_id)
            meta.update(reclaimed=True, reclaimed_from_worker=row.worker_id, reclaimed_reason=reason)
        self._take(row, worker_id, meta, {"command_id": int(row.command_ref)})
        self._remember(row.event_id, worker_id)
        return self._claimed(row)

    def _why_reclaimed(self, holder: str, age_s: float, is_expired: bool) -> str | None:
        if age_s < self._settings.claim_lease_s:
            return None
        if lost := self._registry.why_lost(holder, self._settings.heartbeat_stale_s):
            return lost
        return "hard_timeout" if is_expired else None

    def _busy(self, **fields: JsonValue) -> HttpAnswer:
        return detail(409, {"code": "active_claim", **fields}, retry_after_s=self._settings.retry_after_s)

    def _remember(self, event_id: int, worker_id: str) -> None:
        now = time.monotonic()
        self._cache.pop(event_id, None)  # keeps the dictionary in the order of expiry
        self._cache[event_id] = (worker_id, now + self._settings.claims_cache_ttl_s)
        while (oldest := next(iter(self._cache), None)) is not None and self._cache[oldest][1] < now:
            del self._cache[oldest]

    # ── Rust plane ──────────────────────────────────────────────────────────────────────────────

    def _claim_rust(self, event_id: int, row: CommandRow | None, worker_id: str) -> HttpAnswer:
        if row is None:
            return rust_error(404, f"command not found: {event_id}")
        if not row.is_open:
            return rust_error(409, "Command already reached terminal state")
        if row.worker_id is not None and row.worker_id != worker_id:
            return rust_error(409, f"Command already claimed by {row.worker_id}")
        if event_id in self._held:
            return rust_error(409, "Command is being claimed by another worker")
        if row.worker_id is None:
            self._take(row, worker_id, {}, {"command_id": row.command_ref, "worker_id": worker_id})
        return self._claimed(row)

    # ── both ────────────────────────────────────────────────────────────────────────────────────

    def _take(
        self, row: CommandRow, worker_id: str, meta: Mapping[str, JsonValue], context: Mapping[str, JsonValue]
    ) -> None:
        """Give a command to a worker, and write the event `command.claimed`, because workers do not send this event."""
        event = self._log.write(
            row.execution_id, "command.claimed", row.node, "RUNNING", meta=meta, worker_id=worker_id,
            result={"status": "RUNNING", "context": context}, command_ref=row.command_ref,
        )  # fmt: skip
        self._log.set_claimed(row, worker_id, event.event_id)

    def _claimed(self, row: CommandRow) -> HttpAnswer:
        return HttpAnswer(200, dumps({"status": "ok", "event_id": row.event_id, **command_body(row)}))


def command_body(row: CommandRow) -> dict[str, JsonValue]:
    """Return the body that `GET /commands/{event_id}` answers for a command."""
    return {
        "execution_id": row.execution_id,
        "node_id": row.node,
        "node_name": row.node,
        "action": row.action,
        "context": embed(row.context),
        "meta": embed(row.meta),
    }


def claim_body(body: JsonValue, raw: bytes, dialect: Dialect) -> str:
    """Return the worker's id from the body of a claim. Raises Refused, with the plane's 422 as the answer."""
    worker_id = body.get("worker_id") if isinstance(body, dict) else None
    if isinstance(worker_id, str):
        return worker_id
    if dialect is Dialect.RUST:
        raise rust_refused_body("missing field `worker_id`", raw)
    required("worker_id", body)
    raise invalid("string_type", ["body", "worker_id"], "Input should be a valid string", worker_id)
