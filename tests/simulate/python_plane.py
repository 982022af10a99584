"""The Python control plane: leases, batches with a key, an engine behind a queue (protocol/claim.md#leases)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from noetl_worker.models import Dialect
from noetl_worker.remote.transport.transport import Response
from simulate.plane import OFFLINE_S, STALE_S, Command, Plane, TerminalSet, answer

LEASE_S: Final = 120.0
HARD_S: Final = 1800.0
CACHE_S: Final = 30.0
PENDING_RETRY_S: Final = 60.0
_ENDS: Final = {"command.completed": "COMPLETED", "command.failed": "FAILED"}


@dataclass(slots=True)
class _Batch:
    request_id: str
    execution_id: str
    event_ids: list[int]
    state: str
    items: list[dict[str, Any]]
    worker_id: str


@dataclass(slots=True)
class _Waiting:
    """A batch in the queue of the engine: all go through it (recorded: batch-actionable-default-events)."""

    batch: _Batch
    command: Command
    end: TerminalSet | None
    """What it will act on."""


class PythonPlane(Plane):
    dialect = Dialect.PYTHON
    lease_s = LEASE_S

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cache: dict[int, tuple[str, float]] = {}
        self._batches: dict[str, _Batch] = {}
        self._by_request: dict[str, _Batch] = {}
        """Forgotten at a restart; the batches themselves are events, and are not."""
        self._queue: list[_Waiting] | None = None
        """None: each batch is worked off at once."""
        self.loses_batches = False
        """Fault: batches are stored and never acted on (503 ack_timeout)."""
        self.leaks_claims = False
        """Fault: claims of the same instant are all accepted (5 of 12 rounds, protocol/claim.md#races)."""

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
        command = self.by_id.get(str(items[0]["payload"].get("command_id")) if items else "") or self._command_of(body)
        if command is None:
            return answer(500, {"detail": {"code": "enqueue_error", "message": "no such execution"}})
        if command.is_refused:
            return answer(422, {"detail": [{"msg": "refused for good"}]})
        state = "failed" if self.loses_batches else "completed" if self._queue is None else "accepted"
        batch = _Batch(
            str(self.new_id()), body["execution_id"], [self.new_id() for _ in items], state, items, body["worker_id"]
        )
        self._batches[key or batch.request_id] = self._by_request[batch.request_id] = batch
        self._store(command, batch, items, body["worker_id"], key or batch.request_id)
        if self.loses_batches:
            detail = {"code": "ack_timeout", "request_id": batch.request_id}
            return answer(503, {"detail": detail}, retry_after="1")
        return self._accepted(batch, duplicate=False)

    def _command_of(self, body: dict[str, Any]) -> Command | None:
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

    def _store(self, command: Command, batch: _Batch, items: list[dict[str, Any]], worker_id: str, key: str) -> None:
        """The rows at once, then the engine on the last actionable one; the first end of a command counts."""
        names = [item["name"] for item in items]
        acted = [item for item in items if item["actionable"] and not item["name"].startswith("command.")]
        is_acted_on = bool(acted) and not self.loses_batches and not command.endings
        ends = [item["payload"] for item in items if item["name"] == "call.done"]
        command.results += [{**end["result"], "response": end.get("response")} for end in ends]
        if "command.started" in names and not command.is_terminal:
            command.status = "RUNNING"
        words = [_ENDS[name] for name in names if name in _ENDS]
        if names == ["step.exit"] and command.is_item:
            command.problems.append("an item of a loop is rescued: the loop issues items again that have run")
        end: TerminalSet | None = None
        if words or names == ["step.exit"]:
            word = words[-1] if words else str(items[-1]["payload"].get("status"))
            if not command.is_terminal:
                command.status = word
            end = TerminalSet(worker_id, word, self.clock.now, key, is_acted_on and self._queue is None)
            self.keep(command, end)
        if self._queue is not None and not self.loses_batches:
            self._queue.append(_Waiting(batch, command, end if is_acted_on else None))

    # ── the engine's queue ──

    def queue_up(self) -> None:
        """Fault: the engine stands still, and what is accepted waits."""
        self._queue = [] if self._queue is None else self._queue

    def restart(self, worked_off: int, *, forgets_states: bool = True) -> None:
        """Some of what waits is worked off yet; what is left is forgotten, with the states of all batches, unless they
        are read from the event log: there they wait for ever."""
        waiting, self._queue = self._queue or [], None
        for one in waiting[:worked_off]:
            one.batch.state = "completed"
            if one.end is not None:
                one.command.sets[one.command.sets.index(one.end)] = replace(one.end, is_acted_on=True)
        self.trace.note("plane", f"restarts: {len(waiting[worked_off:])} of {len(waiting)} batches are forgotten")
        if forgets_states:
            self._by_request.clear()

    def _events_of(self, execution_id: str, event_type: str) -> Response:
        """Rows of the event log, the newest first: which batches were accepted, begun and worked off, and what they
        had in them."""
        stored = [one for one in reversed(self._batches.values()) if one.execution_id == execution_id]
        if event_type.startswith("batch."):
            shown = [one for one in stored if event_type == "batch.accepted" or one.state == "completed"]
            rows = [(one.event_ids[0], {"request_id": one.request_id, "event_ids": one.event_ids}) for one in shown]
        else:
            rows = [
                (event_id, {"command_id": item["payload"].get("command_id"), "worker_id": one.worker_id})
                for one in stored
                for event_id, item in zip(one.event_ids, one.items, strict=True)
                if item["name"] == event_type
            ]
        events = [{"event_id": event_id, "result": {"context": context}} for event_id, context in rows]
        return answer(200, {"events": events, "pagination": {"page": 1, "has_next": False}})

    # ── the rest ──

    def other(self, method: str, path: str) -> Response:
        if path == "/api/health":
            return answer(200, {"status": "ok"})
        if path.startswith("/api/result/resolve?"):
            return answer(200, "where")
        if path.startswith("/api/events/batch/"):
            request_id = path.split("/")[4]
            batch = self._by_request.get(request_id)
            if batch is None:
                return answer(404, {"detail": f"Batch request not found: {request_id}"})
            code = "ack_timeout" if batch.state == "failed" else None
            return answer(200, {"state": batch.state, "error_code": code})
        if path.startswith("/api/executions/") and "/events?event_type=" in path:
            return self._events_of(path.split("/")[3], path.partition("event_type=")[2].partition("&")[0])
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
