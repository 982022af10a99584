"""The Python control plane: leases, batches with a key, an engine behind a queue (wire.md 3.2, 3.5, 9.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.models import Dialect
from noetl_worker.transport.transport import Response
from simulate.plane import OFFLINE_S, STALE_S, Command, Plane, TerminalSet, answer

__all__ = ["PythonPlane"]

LEASE_S: Final = 120.0
HARD_S: Final = 1800.0
CACHE_S: Final = 30.0
PENDING_RETRY_S: Final = 60.0
_ENDS: Final = {"command.completed": "COMPLETED", "command.failed": "FAILED"}


@dataclass(slots=True)
class _Batch:
    request_id: str
    event_ids: list[int]
    state: str


class PythonPlane(Plane):
    dialect = Dialect.PYTHON
    lease_s = LEASE_S

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cache: dict[int, tuple[str, float]] = {}
        self._batches: dict[str, _Batch] = {}
        self._by_request: dict[str, _Batch] = {}
        self.loses_batches = False
        """Fault: batches are stored and never acted on (503 ack_timeout)."""
        self.leaks_claims = False
        """Fault: claims of the same instant are all let in (5 of 12 rounds, wire.md 9.4)."""

    def command_id(self, execution_id: int, command_id: int, event_id: int) -> int | str:
        return command_id

    def subject(self, command: Command) -> str:
        return "noetl.commands"

    # ── the claim ──

    def claim(self, event_id: int, worker_id: str) -> Response:
        command = self.commands.get(event_id)
        if command is None:
            return answer(404, {"detail": f"command not found: {event_id}"})
        if command.is_terminal or command.endings:
            return _conflict({"code": "already_terminal", "message": f"Command status: {command.status}"})
        holder, until = self._cache.get(event_id, ("", 0.0))
        age_s = self.clock.now - command.claimed_at
        is_leak = self.leaks_claims and command.holder is not None and age_s < 0.05
        if holder not in ("", worker_id) and until > self.clock.now and not is_leak:
            return _conflict({"code": "active_claim", "worker_id": holder, "claim_policy": "cache_fast_path"})
        if command.holder == worker_id and age_s < HARD_S:
            if command.status == "RUNNING":
                return _conflict({"code": "active_claim", "worker_status": "running"})
            return self.grant(command, worker_id)
        if command.holder is not None and not is_leak and not self._is_lost(command.holder, age_s):
            self._cache[event_id] = (command.holder, self.clock.now + CACHE_S)
            return _conflict({"code": "active_claim", "worker_id": command.holder})
        if is_leak:
            command.leaked_to.add(worker_id)
        command.holder, command.claimed_at, command.status = worker_id, self.clock.now, "CLAIMED"
        self._cache[event_id] = (worker_id, self.clock.now + CACHE_S)
        return self.grant(command, worker_id)

    def _is_lost(self, holder: str, age_s: float) -> bool:
        if age_s < LEASE_S:
            return False
        row = self.registry.get(holder)
        return row is None or row.status != "ready" or self.clock.now - row.beat_at > STALE_S or age_s >= HARD_S

    # ── events ──

    def events(self, path: str, body: dict[str, Any], key: str | None) -> Response:
        if not isinstance(body["execution_id"], str):
            return answer(422, {"detail": "execution_id should be a string"})
        known = self._batches.get(key or "")
        if known is not None:
            return self._accepted(known, duplicate=True)
        items = body["events"]
        command = self.by_id.get(str(items[0]["payload"].get("command_id")) if items else "") or self._of(body)
        if command is None:
            return answer(500, {"detail": {"code": "enqueue_error", "message": "no such execution"}})
        if command.is_refused:
            return answer(422, {"detail": [{"msg": "refused for good"}]})
        batch = _Batch(
            str(self.new_id()), [self.new_id() for _ in items], "failed" if self.loses_batches else "accepted"
        )
        self._batches[key or batch.request_id] = self._by_request[batch.request_id] = batch
        self._store(command, items, body["worker_id"], key or batch.request_id)
        if self.loses_batches:
            detail = {"code": "ack_timeout", "request_id": batch.request_id}
            return answer(503, {"detail": detail}, retry_after="1")
        return self._accepted(batch, duplicate=False)

    def _of(self, body: dict[str, Any]) -> Command | None:
        return next((one for one in self.commands.values() if str(one.execution_id) == body["execution_id"]), None)

    def _accepted(self, batch: _Batch, *, duplicate: bool) -> Response:
        return answer(
            202,
            {
                "status": "accepted",
                "request_id": batch.request_id,
                "event_ids": batch.event_ids,
                "commands_generated": 0,
                "duplicate": duplicate,
            },
        )

    def _store(self, command: Command, items: list[dict[str, Any]], worker_id: str, key: str) -> None:
        """The rows at once, then the engine on the last actionable one; the first end of a command counts."""
        names = [item["name"] for item in items]
        acted = [item for item in items if item["actionable"] and not item["name"].startswith("command.")]
        is_acted_on = bool(acted) and not self.loses_batches and not command.endings
        ends = [item["payload"] for item in items if item["name"] == "call.done"]
        command.results += [{**end["result"], "response": end.get("response")} for end in ends]
        if "command.started" in names and not command.is_terminal:
            command.status = "RUNNING"
        words = [_ENDS[name] for name in names if name in _ENDS]
        if words or names == ["step.exit"]:
            word = words[-1] if words else str(items[-1]["payload"].get("status"))
            if not command.is_terminal:
                command.status = word
            self.keep(command, TerminalSet(worker_id, word, self.clock.now, key, is_acted_on))

    # ── the rest ──

    def other(self, method: str, path: str) -> Response:
        if path == "/api/health":
            return answer(200, {"status": "ok"})
        if path.startswith("/api/result/resolve?"):
            return answer(200, "where")
        if path.startswith("/api/events/batch/"):
            batch = self._by_request.get(path.split("/")[4])
            return answer(200, {"state": batch.state}) if batch else answer(404, {"detail": "batch not found"})
        if path.endswith("/cancellation-check"):
            return answer(200, {"cancelled": False})
        return super().other(method, path)

    def look_after(self) -> None:
        """The registry's sweep, and the reaper: whose holder is lost, or who waits for too long, is published again."""
        now = self.clock.now
        for row in self.registry.values():
            if now - row.beat_at > OFFLINE_S:
                row.status = "offline"
        for command in self.commands.values():
            if command.is_terminal or command.endings:
                continue
            holder = self.registry.get(command.holder or "")
            is_lost = holder is None or holder.status != "ready" or now - command.claimed_at > HARD_S
            waits = command.status == "PENDING" and now - command.issued_at > PENDING_RETRY_S
            if waits or (command.status != "PENDING" and is_lost):
                self.trace.note("plane", f"publishes {command.step} again ({command.status})")
                self.publish(command, again=True)


def _conflict(detail: dict[str, Any]) -> Response:
    return answer(409, {"detail": detail}, retry_after="2")
