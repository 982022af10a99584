"""The Rust control plane: claims for ever, event ids from the worker, history in id order
(protocol/events.md#rust-plane)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.models import Dialect
from noetl_worker.remote.transport.transport import Response
from simulate.plane import Command, Plane, TerminalSet, answer

_ENDS: Final = {"command.completed": "COMPLETED", "command.failed": "FAILED"}
_RESULTS: Final = ("call.done", "call.error")


class RustPlane(Plane):
    dialect = Dialect.RUST

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._events: dict[int, tuple[str, str]] = {}
        """Event id -> (command id, event type): the primary key."""

    def command_id(self, execution_id: int, command_id: int, event_id: int) -> int | str:
        return f"{execution_id}:s:{event_id}"

    def subject(self, command: Command) -> str:
        return f"noetl.commands.shared.{command.execution_id}"

    def claim(self, event_id: int, worker_id: str) -> Response:
        command = self.commands.get(event_id)
        if command is None:
            return _error(404, f"command not found: {event_id}")
        if command.is_terminal:
            return _error(409, "Command already reached terminal state")
        if command.holder not in (None, worker_id):
            return _error(409, f"Command already claimed by {command.holder}")
        if command.holder is None:
            command.holder, command.claimed_at, command.status = worker_id, self.clock.now, "CLAIMED"
            command.high_id = self.new_id()  # its own command.claimed
        return self.grant(command, worker_id)

    def events(self, path: str, body: dict[str, Any], key: str | None) -> Response:
        if path.endswith("/batch"):
            return self._batch(body)
        command = self.by_id.get(str((body.get("meta") or {}).get("command_id")))
        if command is None:
            return _error(500, 'Database error: violates foreign key constraint "event_catalog_id_fkey"')
        if command.is_refused:
            return _error(422, "refused for good")
        event_id, name = int(body["event_id"]), str(body["event_type"])
        if event_id in self._events:
            return _error(500, 'Database error: duplicate key value violates unique constraint "event_pkey"')
        self._events[event_id] = (str(command.command_id), name)
        if name == "call.done":
            command.results.append(body["context"]["result"])
        self._apply(command, name, str(body.get("worker_id")), event_id)
        return answer(200, {"status": "ok", "event_id": event_id, "commands_generated": 0})

    def end_with_work(self, path: str, body: Mapping[str, Any]) -> Command | None:
        """It issues the next commands inside of the request, and drops that work when the client hangs up; a second
        `command.completed` does not mend it (protocol/events.md#rust-plane)."""
        if path != "/api/events" or body.get("event_type") not in _ENDS:
            return None
        command = self.by_id.get(str((body.get("meta") or {}).get("command_id")))
        return command if command is not None and command.next_s and not command.is_over else None

    def _batch(self, body: dict[str, Any]) -> Response:
        """Ids are the plane's, meta is lost: only a single `command.completed` ends a command."""
        ids = []
        for item in body["events"]:
            command = self.by_id.get(str(item["payload"].get("command_id")))
            if command is None:
                return _error(500, 'Database error: violates foreign key constraint "event_catalog_id_fkey"')
            if command.is_refused:
                return _error(422, "refused for good")
            event_id = self.new_id()
            ids.append(event_id)
            if item["name"] == "call.done":
                command.results.append(item["payload"]["result"])
            if item["name"] in _RESULTS:
                command.result_ids.append(event_id)
        return answer(200, {"status": "ok", "event_ids": ids, "commands_generated": 0})

    def _apply(self, command: Command, name: str, worker_id: str, event_id: int) -> None:
        """History is read in id order: what counts is what lies above the claim, and an end above its result.

        What comes twice and late lies above the end, and is harmless there (protocol/events.md#ids).
        """
        if event_id >> 22 > (self.new_id() >> 22) + 1:
            command.problems.append(f"{name} has id {event_id}, ahead of the plane: later results are passed over")
        is_seen = event_id > command.high_id
        if not is_seen:
            command.problems.append(f"{name} has id {event_id}, not above {command.high_id}")
        if name in _RESULTS:
            command.result_ids.append(event_id)
        elif name in _ENDS:
            if not any(one < event_id for one in command.result_ids):
                command.problems.append(f"{name} has no result below it")
            if not command.is_terminal:
                command.status = _ENDS[name]
            self.keep(command, TerminalSet(worker_id, _ENDS[name], self.clock.now, str(event_id), is_seen))

    def _execution(self, path: str) -> Response:
        """GET /api/executions/{id}, as far as a worker reads it (recorded: `clock-behind-execution`)."""
        execution_id = path.removeprefix("/api/executions/")
        command = next((one for one in self.commands.values() if str(one.execution_id) == execution_id), None)
        if command is None:
            return _error(404, "not found")
        issued = {"event_id": command.event_id, "event_type": "command.issued", "node_name": "s", "result": None}
        ends = [
            {"event_id": event_id, "event_type": name, "result": {"context": {"command_id": command_id}}}
            for event_id, (command_id, name) in self._events.items()
            if command_id == str(command.command_id) and name in _ENDS
        ]
        is_running = not command.is_terminal or (command.next_s and not command.has_next)
        return answer(200, {"status": "RUNNING" if is_running else "COMPLETED", "events": [issued, *ends]})

    def other(self, method: str, path: str) -> Response:
        if path == "/api/health":
            health = {"status": "healthy", "database": "ok", "nats": "ok", "uptime_seconds": 1, "version": "3.54.0"}
            return answer(200, health)
        if path.endswith("/cancellation-check"):
            return answer(200, {"execution_id": path.split("/")[3], "is_cancelled": False})
        if path.startswith("/api/executions/"):
            return self._execution(path)
        return _error(404, "not found")

    def deregister(self, name: str) -> None:
        del self.registry[name]


def _error(status: int, text: str) -> Response:
    return answer(status, {"error": text, "status": status})
