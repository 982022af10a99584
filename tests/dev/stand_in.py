"""A worker of some hundred lines, enough to drive the development plane without the real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import nats
from nats.aio.msg import Msg

from noetl_worker.dev.snowflake import Snowflake
from noetl_worker.models import Dialect
from noetl_worker.templates.template import render
from patience import PATIENCE_S

SUBJECTS = "noetl.commands.>"


class StandInWorker:
    """Claims and runs one command after another; reports in the dialect's form."""

    def __init__(self, server_url: str, dialect: Dialect, worker_id: str = "stand-in") -> None:
        self.client = httpx.AsyncClient(base_url=server_url, timeout=PATIENCE_S, verify=False)
        self.dialect, self.worker_id = dialect, worker_id
        self.snowflake = Snowflake(7)
        self.claimed: list[dict[str, Any]] = []
        self.refused: list[int] = []
        self.slots = asyncio.Semaphore(16)

    async def handle(self, notification: dict[str, Any]) -> None:
        async with self.slots:
            await self.claim_and_run(notification)

    async def claim_and_run(self, notification: dict[str, Any]) -> None:
        answer = await self.client.post(
            f"/api/commands/{notification['event_id']}/claim", json={"worker_id": self.worker_id}
        )
        if answer.status_code != 200:
            self.refused.append(answer.status_code)
            return
        command = answer.json()
        self.claimed.append(command)
        try:
            data = await self.run(command)
            error = None
        except Exception as raised:
            data, error = {"status": "error", "error": str(raised)}, str(raised)
        report = self.report_rust if self.dialect is Dialect.RUST else self.report_python
        await report(command, notification["command_id"], data, error)

    # ── tools ───────────────────────────────────────────────────────────────────────────────────

    async def resolved(self, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "result_ref":
            return (await self.client.get("/api/result/resolve", params={"ref": value["ref"]})).json()
        return value

    async def run(self, command: dict[str, Any]) -> Any:
        context = {key: await self.resolved(value) for key, value in command["context"].items()}
        config, scope = context["tool_config"], dict(context["render_context"])
        if command["action"] == "task_sequence":
            tasks = config["tasks"] if isinstance(config, dict) else [next(iter(task.values())) for task in config]
            return await self.run_sequence(tasks, scope)
        given = {**context.get("input", {}), **config.get("input", {}), **config.get("args", {})}
        return await self.run_tool(command["action"], config, given, command)

    async def run_sequence(self, tasks: list[dict[str, Any]], scope: dict[str, Any]) -> Any:
        results: dict[str, Any] = {}
        updates: dict[str, Any] = {}
        previous: Any = None
        for task in tasks:
            seen = {**scope, **results, "_prev": previous, "ctx": {**scope.get("ctx", {}), **updates}}
            given = render(task.get("input", {}), seen)
            rest = {key: value for key, value in task.items() if key not in ("input", "spec", "set")}
            previous = await self.run_tool(task["kind"], render(rest, seen), given, {})
            results[task["name"]] = previous
            for key, value in (task.get("set") or {}).items():
                updates[key.removeprefix("ctx.")] = render(value, {**seen, "output": previous})
        if self.dialect is Dialect.RUST:
            return {**results, "_context_updates": {f"ctx.{key}": value for key, value in updates.items()}}
        return {"status": "ok", "results": results, "ctx": updates, "_prev": previous}

    async def run_tool(self, kind: str, config: dict[str, Any], given: dict[str, Any], command: Any) -> Any:
        if kind == "python":
            names = dict(given)
            exec(config["code"], names)
            return names.get("result")
        if kind == "shell":
            process = await asyncio.create_subprocess_shell(config["command"], stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            if process.returncode:
                raise RuntimeError(f"exit {process.returncode}")
            return {"stdout": out.decode(), "exit_code": 0}
        if kind == "http":
            answer = await self.client.request(config.get("method", "GET"), config["url"])
            return {"status_code": answer.status_code, "data": answer.json()}
        if kind == "playbook":
            body = {
                "path": config["path"],
                "payload": given,
                "parent_execution_id": command["execution_id"],
            }
            started = (await self.client.post("/api/execute", json=body)).json()
            return {"status": "started", "async": True, "execution_id": started["execution_id"]}
        return {"status": "ok", "message": "noop"}

    # ── reports ─────────────────────────────────────────────────────────────────────────────────

    async def report_python(self, command: dict[str, Any], command_id: Any, data: Any, error: str | None) -> None:
        meta, step = command["meta"], command["node_name"]
        status = "COMPLETED" if error is None else "FAILED"
        kept = data if isinstance(data, dict) else {"value": data}
        named = {"command_id": command_id}
        looped = {
            "loop_event_id": meta.get("loop_event_id"),
            "loop_iteration_index": meta.get("loop_iteration_index"),
        }
        result = {"status": status, "context": kept}
        call = {**named, **looped, "response": data, "result": result}
        end = {**named, "worker_id": self.worker_id, "result": result}
        if error is not None:
            call["error"] = end["error"] = error
        names = ("call.done", "command.completed") if error is None else ("call.error", "command.failed")
        events = [
            event(step, "command.started", {**named, "worker_id": self.worker_id}),
            event(step, "step.enter", {"status": "started"}),
            event(step, names[0], call, is_actionable=True),
            event(step, "step.exit", {**named, "status": status, "result": result, "error": error}),
            event(step, names[1], end),
        ]
        body = {"execution_id": str(command["execution_id"]), "worker_id": self.worker_id, "events": events}
        key = f"{self.worker_id}:{uuid.uuid4().hex}"
        answer = await self.client.post("/api/events/batch", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text

    async def report_rust(self, command: dict[str, Any], command_id: Any, data: Any, error: str | None) -> None:
        self.snowflake.observe(command["event_id"])
        if error is None:
            result = {"status": "success", "context": {"status": "success", "data": data}}
            parts: list[tuple[str, dict[str, Any]]] = [
                ("call.done", {"call_index": 0, "result": result}),
                ("command.completed", {"status": "success"}),
            ]
        else:
            parts = [("call.error", {"error": error}), ("command.failed", {"error": error})]
        for name, context in [("command.started", {}), *parts]:
            body = {
                "execution_id": command["execution_id"],
                "event_id": self.snowflake.next_id(),
                "event_type": name,
                "step": command["node_name"],
                "status": "COMPLETED",
                "created_at": "2026-01-01T00:00:00Z",
                "context": {"command_id": command_id, **context},
                "worker_id": self.worker_id,
                "meta": {"command_id": command_id, "attempts": 0},
            }
            answer = await self.client.post("/api/events", json=body)
            assert answer.status_code == 200, answer.text


def event(step: str, name: str, payload: dict[str, Any], *, is_actionable: bool = False) -> dict[str, Any]:
    return {"step": step, "name": name, "payload": payload, "actionable": is_actionable}


@contextlib.asynccontextmanager
async def stand_in(nats_url: str, server_url: str, dialect: Dialect) -> AsyncIterator[StandInWorker]:
    """A StandInWorker that pulls from the command stream until the block ends."""
    worker = StandInWorker(server_url, dialect)
    connection = await nats.connect(nats_url)
    tasks: set[asyncio.Task[None]] = set()

    async def take(message: Msg) -> None:
        await message.ack()
        task = asyncio.create_task(worker.handle(json.loads(message.data)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for subject in ("noetl.commands", SUBJECTS):
        durable = "stand_in" if subject == SUBJECTS else "stand_in_bare"
        await connection.jetstream().subscribe(subject, durable=durable, cb=take, manual_ack=True)
    try:
        yield worker
    finally:
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await worker.client.aclose()
        await connection.close()
