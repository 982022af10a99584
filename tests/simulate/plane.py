"""What both control planes have in common: commands, the registry, what is kept for the invariants.

An oracle of its own, written from protocol/README.md and not from the development control plane: small enough to be
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.models import Dialect
from noetl_worker.remote.transport.transport import Response
from simulate.clock import Clock, Process
from simulate.trace import Trace

TERMINAL: Final = ("COMPLETED", "FAILED")
_EPOCH_MS: Final = 1_704_067_200_000
_ITEM: Final = {"loop_event_id": "loop_7", "loop_iteration_index": 3, "__loop_epoch_id": "loop_7"}
STALE_S: Final = 30.0
OFFLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class TerminalSet:
    """One set of terminal events that the plane has stored."""

    worker_id: str
    word: str
    at: float
    mark: str
    """What tells a repetition from another set: the idempotency key, or the event id."""
    is_acted_on: bool
    """False: stored, and nothing follows from it."""


@dataclass(eq=False, slots=True)
class Command:
    """A command's row, and all that is known of it."""

    execution_id: int
    event_id: int
    command_id: int | str
    step: str
    config: Mapping[str, Any]
    issued_at: float
    status: str = "PENDING"
    holder: str | None = None
    claimed_at: float = 0.0
    high_id: int = 0
    """Rust plane: an event with a lower id is never seen by the orchestrator (protocol/events.md#ids)."""
    result_ids: list[int] = field(default_factory=list)
    is_refused: bool = False
    """The plane refuses every event of it for good."""
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When which worker asked for it; a worker by its own name, without what makes its id unique."""
    grants: list[tuple[float, str]] = field(default_factory=list)
    leaked_to: set[str] = field(default_factory=set)
    """Workers that were accepted only because claims of the same instant all are (protocol/claim.md#races)."""
    refused_at: dict[str, float] = field(default_factory=dict)
    """Worker -> when it was told that the command is another's, or over; gone when it is accepted again."""
    sets: list[TerminalSet] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    """`result` of every call.done that was stored."""
    next_s: float = 0.0
    """Rust plane: how long it works on the next command inside of the request that tells it of this one's end."""
    is_worked_on: bool = False
    has_next: bool = False
    """The next command was issued."""
    is_item: bool = False
    """Python plane: of a loop."""
    cut_off: tuple[Process, bool] | None = None
    """Whose request was cut off meanwhile, so that no next command will ever be issued; whether the network did it."""
    runs: list[tuple[float, str]] = field(default_factory=list)
    """When and where its tool had its side effect."""
    problems: list[str] = field(default_factory=list)

    @property
    def endings(self) -> list[TerminalSet]:
        return [one for one in self.sets if one.is_acted_on]

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_over(self) -> bool:
        """Nothing will happen to it any more: it has ended, or never can."""
        return self.is_terminal or self.is_refused or bool(self.endings)


@dataclass(slots=True)
class Runtime:
    status: str
    beat_at: float


class Plane:
    """One control plane; `handle` answers one request at once."""

    dialect: Dialect
    lease_s = math.inf
    """How long a claim is its holder's, whatever becomes of it."""

    def __init__(self, clock: Clock, trace: Trace, publish: Callable[[str, bytes], None]) -> None:
        self.clock = clock
        self.trace = trace
        self._publish = publish
        self.commands: dict[int, Command] = {}
        self.by_id: dict[str, Command] = {}
        self.registry: dict[str, Runtime] = {}
        self.results: dict[str, Any] = {}
        """The result store: reference -> data."""
        self.on_next: Callable[[], None] = lambda: None
        """Issues the next command of an execution."""
        self.refuses_login = False
        self.trouble: Callable[[str], Response | None] = lambda _: None
        """A fault's own answer to a request for this path, before the plane looks at it."""
        self._last_id = 0

    # ── what the world does ──

    def issue(self, number: int, config: Mapping[str, Any], next_s: float = 0.0) -> Command:
        """Issue a command (an execution of its own) and publish its notification."""
        execution_id, command_id, event_id = self.new_id(), self.new_id(), self.new_id()
        command = Command(
            execution_id,
            event_id,
            self.command_id(execution_id, command_id, event_id),
            f"s{number}",
            config,
            self.clock.now,
        )
        command.high_id, command.next_s = event_id, next_s
        self.commands[event_id] = command
        self.by_id[str(command.command_id)] = command
        self.trace.note("plane", f"issues {command.step}")
        self.publish(command)
        return command

    def publish(self, command: Command, *, again: bool = False) -> None:
        self._publish(self.subject(command), json.dumps(self.notification(command, again=again)).encode())

    def end_with_work(self, path: str, body: Mapping[str, Any]) -> Command | None:
        """The command whose end this request tells, when the plane will work on the next one inside of it."""
        return None

    def worked(self, command: Command, process: Process, *, is_there: bool, is_lost: bool) -> None:
        """The time that the next command takes is over; the client of `process` is there still, or has hung up."""
        command.is_worked_on = False
        if is_there:
            command.has_next = True
            self.trace.note("plane", f"has the next command of {command.step}")
            self.on_next()
        else:
            command.cut_off = (process, is_lost)
            self.trace.note("plane", f"drops the next command of {command.step}: {process.name} is gone")

    def new_id(self) -> int:
        """The plane's own snowflake, by its own clock."""
        floor = (int(self.clock.true_wall() * 1000) - _EPOCH_MS) << 22
        self._last_id = max(floor, self._last_id + 1)
        return self._last_id

    def look_after(self) -> None:
        """What the plane does by itself every minute: nothing, unless its dialect says so."""

    # ── dialects ──

    def command_id(self, execution_id: int, command_id: int, event_id: int) -> int | str:
        raise AssertionError("a dialect's business")

    def subject(self, command: Command) -> str:
        raise AssertionError("a dialect's business")

    def notification(self, command: Command, *, again: bool) -> dict[str, Any]:
        return {
            "execution_id": command.execution_id,
            "event_id": command.event_id,
            "command_id": str(command.command_id) if again else command.command_id,
            "step": command.step,
            "server_url": "http://plane.test",
        }

    def claim(self, event_id: int, worker_id: str) -> Response:
        raise AssertionError("a dialect's business")

    def events(self, path: str, body: dict[str, Any], key: str | None) -> Response:
        raise AssertionError("a dialect's business")

    def other(self, method: str, path: str) -> Response:
        return answer(404, {"detail": "Not Found"})

    # ── requests ──

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> Response:
        """One request of a worker, processed in one instant."""
        if self.refuses_login and path != "/api/health":
            return answer(401, {"detail": "credentials"})
        said = self.trouble(path)
        if said is not None:
            return said
        if path.startswith("/api/commands/") and path.endswith("/claim"):
            return self._asked(int(path.split("/")[3]), body["worker_id"])
        if path in ("/api/events", "/api/events/batch"):
            return self.events(path, body, headers.get("idempotency-key"))
        if path.startswith("/api/worker/pool/"):
            return self._pool(path.rpartition("/")[2], body["name"])
        if method == "PUT" and path.startswith("/api/result/"):
            return self._store_result(path.rpartition("/")[2], body)
        return self.other(method, path)

    def _asked(self, event_id: int, worker_id: str) -> Response:
        said = self.claim(event_id, worker_id)
        if (command := self.commands.get(event_id)) is not None:
            command.asked.append((self.clock.now, worker_id.partition("-")[0]))
            if said.status == 409 and not (command.holder == worker_id and not command.is_over):
                command.refused_at[worker_id] = self.clock.now
            else:
                command.refused_at.pop(worker_id, None)
        return said

    def _store_result(self, execution_id: str, body: dict[str, Any]) -> Response:
        ref = f"noetl://execution/{execution_id}/result/{body['name']}/{self.new_id()}"
        self.results[ref] = body["data"]
        return answer(200, {"ref": ref, "store": "kv", "scope": body["scope"], "expires_at": None})

    def _pool(self, verb: str, name: str) -> Response:
        row = self.registry.get(name)
        if verb == "register":
            self.registry[name] = Runtime("ready", self.clock.now)
        elif row is None:
            return answer(404, {"detail": {"status": "unknown", "name": name}})
        elif verb == "heartbeat":
            row.beat_at, row.status = self.clock.now, "ready"
        else:
            self.deregister(name)
        return answer(200, {"status": "ok", "name": name})

    def deregister(self, name: str) -> None:
        self.registry[name].status = "offline"

    def grant(self, command: Command, worker_id: str) -> Response:
        command.grants.append((self.clock.now, worker_id))
        self.trace.note("plane", f"gives {command.step} to {worker_id}")
        return answer(
            200,
            {
                "status": "ok",
                "event_id": command.event_id,
                "execution_id": command.execution_id,
                "node_id": command.step,
                "node_name": command.step,
                "action": "simulated",
                "context": {"tool_config": dict(command.config), "render_context": {}},
                "meta": {"command_id": command.command_id, "attempt": 1, **(_ITEM if command.is_item else {})},
            },
        )

    def keep(self, command: Command, one: TerminalSet) -> None:
        """Take note of a stored outcome."""
        command.sets.append(one)
        effect = "" if one.is_acted_on else " (nothing follows)"
        self.trace.note("plane", f"stores {one.word} of {command.step} by {one.worker_id}{effect}")


def answer(status: int, body: Any, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): text for name, text in headers.items()}, json.dumps(body).encode())
