"""Recorded exchanges of the real planes against the development plane: reading, driving, comparing shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from noetl_worker.authoring.dev.event_log import CommandRow
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings

HERE = Path(__file__).parent
SAMPLES = HERE / "samples"
PLAYBOOKS = HERE / "playbooks"
Record = dict[str, Any]

FREE = frozenset({"response", "value", "token_data", "workload", "variables", "message", "payload"})
"""Below these keys only the kind of value is compared: what is inside is the playbook's or free text."""
EXACT = frozenset(
    {"code", "claim_policy", "worker_status", "state", "action", "node_name", "tool_kind", "store", "scope"}
)
"""Words that workers decide by: compared whole."""


def records(name: str) -> list[Record]:
    with (SAMPLES / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def playbook_text(name: str) -> str:
    return (PLAYBOOKS / f"{name}.yaml").read_text(encoding="utf-8")


# ── shapes ──────────────────────────────────────────────────────────────────────────────────────


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return {str: "text", list: "list", dict: "object", type(None): "null"}[type(value)]


def differences(
    recorded: Any, given: Any, path: str = "", *, free: frozenset[str] = FREE, exact: frozenset[str] = EXACT
) -> Iterator[str]:
    """Where the shape of `given` differs from that of `recorded`: kinds of values, keys of objects."""
    if isinstance(recorded, str) and recorded.startswith("<"):
        return  # a place holder of the recording
    if kind_of(recorded) != kind_of(given):
        yield f"{path}: {kind_of(recorded)} recorded, {kind_of(given)} given ({given!r:.80})"
        return
    name = path.rpartition(".")[2]
    if name in exact and recorded != given:
        yield f"{path}: {recorded!r} recorded, {given!r} given"
    if name in free:
        return
    if isinstance(recorded, dict):
        for key in sorted({*recorded, *given}):
            if key not in given:
                yield f"{path}.{key}: missing"
            elif key not in recorded:
                yield f"{path}.{key}: not in the recording"
            else:
                yield from differences(recorded[key], given[key], f"{path}.{key}", free=free, exact=exact)
    if isinstance(recorded, list) and recorded and given and not isinstance(recorded[0], str):
        yield from differences(recorded[0], given[0], f"{path}[0]", free=free, exact=exact)


def substitute(value: Any, known: Mapping[Any, Any]) -> Any:
    """`value` with every recorded id (number, digits, or whole text) replaced by ours."""
    if isinstance(value, dict):
        return {key: substitute(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, known) for item in value]
    if isinstance(value, (int, str)) and not isinstance(value, bool) and value in known:
        return known[value]
    return value


def substitute_path(path: str, known: Mapping[Any, Any]) -> str:
    """`path` with every recorded id in it replaced by ours, longer ones first."""
    for old in sorted((key for key in known if isinstance(key, str)), key=len, reverse=True):
        path = path.replace(old, str(known[old]))
    return path


# ── driving ─────────────────────────────────────────────────────────────────────────────────────


class Driver:
    """A plane without sockets, and a worker's calls on it."""

    def __init__(self, settings: PlaneSettings) -> None:
        self.plane = DevControlPlane(settings)
        transport = httpx.ASGITransport(app=self.plane.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://plane")

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.plane.close()

    async def send(
        self, method: str, path: str, body: Any = None, *, content: str | None = None, headers: Any = None
    ) -> httpx.Response:
        """One request; then what it set going is worked off, as the planes' queues do in a moment."""
        if content is None and body is not None:
            content = json.dumps(body)
        answer = await self.client.request(method, path, content=content, headers=headers)
        await self.plane.finish_work()
        return answer

    async def claim(self, event_id: int, worker_id: str = "worker-rec-a") -> httpx.Response:
        return await self.send("POST", f"/api/commands/{event_id}/claim", {"worker_id": worker_id})

    async def execute(self, name: str, payload: Mapping[str, Any] | None = None) -> int:
        """Register a recorded playbook and execute it; the execution's id."""
        entry = self.plane.register_playbook(playbook_text(name))
        return await self.plane.execute(entry.path, payload)

    def open_commands(self, execution_id: int) -> list[CommandRow]:
        return [row for row in self.plane.commands(execution_id) if row.is_open]

    async def started(self, row: CommandRow) -> None:
        await self._batch(row, [("command.started", {}, False)])

    async def finish(
        self, row: CommandRow, response: Any, *, is_ok: bool = True, is_single: bool = False, node: str | None = None
    ) -> None:
        """Report a command's end, in the Python worker's batch form or as single events."""
        result: Record = {"status": "COMPLETED" if is_ok else "FAILED", "context": {}}
        if is_ok:
            events = [("call.done", {"response": response, "result": result}, True), ("command.completed", {}, False)]
        else:
            events = [("call.error", {"error": "boom", "result": result}, True)]
            events.append(("command.failed", {"error": "boom"}, False))
        row = row._replace(node=node or row.node)
        if not is_single:
            await self._batch(row, events)
            return
        for name, payload, _ in events:
            body = {"execution_id": row.execution_id, "step": row.node, "name": name}
            body["payload"] = {"command_id": int(row.command_ref), **payload}
            answer = await self.send("POST", "/api/events", body)
            assert answer.status_code == 200, answer.text

    async def _batch(self, row: CommandRow, events: Sequence[tuple[str, Mapping[str, Any], bool]]) -> None:
        body = {
            "execution_id": str(row.execution_id),
            "events": [
                {
                    "step": row.node,
                    "name": name,
                    "payload": {"command_id": int(row.command_ref), **payload},
                    "actionable": is_actionable,
                }
                for name, payload, is_actionable in events
            ],
        }
        answer = await self.send("POST", "/api/events/batch", body)
        assert answer.status_code == 202, answer.text

    async def run_to_end(self, execution_id: int, *, fails: bool = False) -> None:
        """Finish every command; `fails`: the first one fails."""
        while rows := self.open_commands(execution_id):
            await self.claim(rows[0].event_id)
            await self.finish(rows[0], ANY_RESULT, is_ok=not fails)
            fails = False


ANY_RESULT = {"ok": True, "score": 7, "value": 11, "text": "x", "data": {"status": "ok"}}
"""What a command answers when the recording does not say; makes every recorded condition decidable."""


def meta_of(row: CommandRow) -> dict[str, Any]:
    found = json.loads(row.meta)
    assert isinstance(found, dict)
    return found


def workload_of(name: str) -> dict[str, Any]:
    found = yaml.safe_load(playbook_text(name)).get("workload") or {}
    assert isinstance(found, dict)
    return found
