"""The recorded value playbooks through our worker and the development plane: what each step gave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.requests import Request

from compat.accepted_values import stable
from compat.event_shapes import rust_end
from compat.postgres_server import PostgresServer
from compat.values_compare import differences
from compat.values_server import RECORDED_AT, values_server
from integration.house import House, house
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.server.catalog import CatalogEntry
from noetl_worker.models import Dialect
from noetl_worker.process import event_loop
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.rules import NOTED
from patience import PATIENCE_S

HERE = Path(__file__).parent / "values"
AT_ONCE = 12
"""Playbooks that run at the same time: they start processes, and the machine has other tests to do."""
MOST_COMMANDS = 40
"""One with more returns to itself for ever, and is cancelled, as it was for the recording."""
LARGE_INPUT = ("<word, 22000 times>", "word " * 22_000)
CHILDREN = ("child", "child-fails")
PYTHON_ENDS = frozenset({"call.done", "call.error", "step.exit", "command.completed", "command.failed"})
_BOOKKEEPING = ("batch.",)
Observed = dict[str, Any]


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "playbooks").glob("*.yaml"))


def chosen(session: pytest.Session, plane: str) -> list[str]:
    """The playbooks that this session tests on `plane`, each once."""
    params = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    return list(dict.fromkeys(one["playbook"] for one in params if one.get("plane") == plane and "playbook" in one))


def recorded(dialect: Dialect) -> dict[str, Observed]:
    """What the published worker gave on the real plane, by playbook."""
    with (HERE / f"values-{dialect.value}.jsonl").open(encoding="utf-8") as lines:
        return {one["name"]: one for one in map(json.loads, lines)}


def playbook_text(name: str, server: str, folder: Path = HERE / "playbooks") -> str:
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    return text.replace(*LARGE_INPUT).replace(RECORDED_AT, server)


def credentials(postgres_port: int) -> list[dict[str, Any]]:
    plain = {"host": "127.0.0.1", "port": postgres_port, "user": "demo", "password": "demo", "database": "demo_noetl"}
    prefixed = {"db_name" if key == "database" else f"db_{key}": value for key, value in plain.items()}
    return [
        {"name": "pg_demo", "type": "postgres", "data": {**plain, **prefixed}, "tags": []},
        {"name": "token_demo", "type": "bearer", "data": {"token": "demo-token-123"}, "tags": []},
    ]


def size_of(event: dict[str, Any]) -> int:
    return len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())


class Listener:
    """Every event that the worker posts, as it is posted: the plane keeps less of some."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_rust = dialect is Dialect.RUST
        self.posted: dict[int, list[dict[str, Any]]] = {}

    async def __call__(self, request: Request) -> None:
        if request.method == "POST" and request.url.path in ("/api/events", "/api/events/batch"):
            body = await request.json()
            self.posted.setdefault(int(body["execution_id"]), []).extend(body.get("events", [body]))

    def steps(self, execution_id: int, resolve: Any) -> dict[str, Any]:
        """By step what its terminal events said; a step that ran more than once as `runs`."""
        seen: dict[str, list[dict[str, Any]]] = {}
        for event in self.posted.get(execution_id, []):
            name = event.get("event_type") or event.get("name")
            step = event.get("step") or event.get("node_name")
            if name in ("call.done", "call.error"):
                payload = event.get("context") or event.get("payload") or {}
                end = rust_end(name, payload) if self._is_rust else self._python(name, payload, resolve)
                seen.setdefault(step, []).append(end)
        return {step: runs[0] if len(runs) == 1 else {"runs": runs} for step, runs in seen.items()}

    def ends(self, execution_id: int) -> list[int]:
        """Bytes of each terminal event."""
        events = self.posted.get(execution_id, [])
        return [size_of(event) for event in events if event.get("name") in PYTHON_ENDS]

    def _python(self, name: str, payload: dict[str, Any], resolve: Any) -> dict[str, Any]:
        result = payload.get("result") or {}
        if name == "call.error":
            context = {key: value for key, value in (result.get("context") or {}).items() if key != "error"}
            return {"status": name, "error": payload.get("error"), "value": context}
        found: dict[str, Any] = {"status": result.get("status")}
        reference = result.get("reference")
        if "response" in payload or not reference:
            found["value"] = payload.get("response", result.get("context"))
        else:
            found |= {"value": resolve(reference["ref"]), "reference": True}
        return found


async def observe(dialect: Dialect, wanted: Sequence[str], server: str, postgres_port: int) -> dict[str, Observed]:
    """Run the playbooks, some at a time, on one plane with one worker."""
    async with house(dialect, plane={"result_prefix": "/api"}, NOETL_WORKER_OUTBOX="off") as scene:
        listener = Listener(dialect)
        scene.plane.fault = listener
        for body in credentials(postgres_port):
            scene.plane.credentials.write(body)
        for name in {*wanted, *CHILDREN}:
            scene.plane.register_playbook(playbook_text(name, server))
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> tuple[str, Observed]:
            async with places:
                return name, await _observe_one(scene, listener, name)

        return dict(await asyncio.gather(*(one(name) for name in wanted)))


async def _observe_one(scene: House, listener: Listener, name: str) -> Observed:
    plane = scene.plane
    entry = plane.catalog.find(path=f"values/{name}")
    assert isinstance(entry, CatalogEntry)
    answer = plane.executions.execute_route({"path": entry.path})
    said = json.loads(answer.body)
    if answer.status != 200:
        return {"name": name, "outcome": "refused", "text": json.dumps(said)}
    await plane.dispatcher.flush()
    execution = plane.execution(int(said["execution_id"]))
    is_hanging = False
    try:
        await plane.wait_until(lambda: _is_still(execution) or _is_endless(scene, execution), timeout_s=PATIENCE_S)
        if not _is_still(execution):
            plane.executions.cancel_route(execution.execution_id, {})
        for child in plane.executions.children(execution.execution_id):
            await plane.wait_until(lambda child=child: _is_still(child), timeout_s=PATIENCE_S)
    except TimeoutError:
        is_hanging = True
    found: Observed = {"name": name, "outcome": "hanging" if is_hanging else _outcome(scene, execution)}
    found |= _seen_of(scene, listener, execution)
    children = plane.executions.children(execution.execution_id)
    if children:
        found["children"] = [_seen_of(scene, listener, child) for child in children]
    return found


def _is_still(execution: Execution) -> bool:
    """Whether nothing follows any more: it has ended, or no command is out and no event to come."""
    return execution.is_over or not execution.open_commands


def _is_endless(scene: House, execution: Execution) -> bool:
    return len(scene.plane.commands(execution.execution_id)) > MOST_COMMANDS


def _outcome(scene: House, execution: Execution) -> str:
    last = [event.event_type for event in scene.plane.events(execution.execution_id)]
    if "playbook.completed" in last:
        return "completed"
    if "playbook.failed" in last or execution.status == "FAILED":
        return "failed"
    status = json.loads(scene.plane.inspection.status_route(execution.execution_id).body)
    return "inferred" if status.get("completion_inferred") else "running"


def _seen_of(scene: House, listener: Listener, execution: Execution) -> Observed:
    def resolve(reference: str) -> Any:
        stored = scene.plane.results.find(reference)
        return json.loads(RULES[scene.plane.dialect].whole_result(stored)) if stored is not None else None

    return {
        "steps": listener.steps(execution.execution_id, resolve),
        "ends": listener.ends(execution.execution_id),
        "events": list(_events(scene, execution)),
    }


def _events(scene: House, execution: Execution) -> Iterator[list[str]]:
    for event in scene.plane.events(execution.execution_id):
        if not event.event_type.startswith(_BOOKKEEPING) and event.event_type != NOTED:  # ours alone, for people
            yield [event.event_type, event.node]


class Seen(NamedTuple):
    lines: list[str]
    """Where our values are not the recorded ones."""
    ours: Observed
    """What ours are, less what is another one in every run."""


def compare(plane: str, wanted: Sequence[str], postgres: PostgresServer) -> dict[str, Seen]:
    """Run the playbooks; by playbook what we gave, and where it is not what was recorded."""
    dialect = Dialect(plane)
    postgres.sql("CREATE ROLE demo LOGIN PASSWORD 'demo'; CREATE DATABASE demo_noetl OWNER demo;")
    with values_server() as server:
        ours = event_loop.run(observe(dialect, wanted, server, postgres.port))
    theirs = recorded(dialect)
    return {name: Seen(differences(theirs[name], ours[name], server), stable(ours[name], server)) for name in wanted}
