"""Playbooks on the published Rust control plane: what each step gave, the outcome and the events."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig

from compat.event_shapes import rust_end, shapes
from compat.postgres_server import PostgresServer
from compat.real_plane import control_plane, make_stream, our_worker, prepare_database
from compat.values_run import AT_ONCE, Observed, credentials
from noetl_worker.authoring.dev.nats_server import NatsServer

PLAYBOOK_S = 40.0
"""After this long a playbook counts as hanging."""
POLL_S = 0.1
QUIET_S = 8.0
"""No command out and no event for this long: nothing follows any more. What follows a loop without items is issued by a
look of the plane's own, after 3.1 s in the recording (loop-empty)."""
ISSUED = "command.issued"
COMMAND_ENDS = ("command.completed", "command.failed")
ENDED = ("playbook.completed", "playbook.failed")
EVENTS = """
    SELECT execution_id, event_type, node_name, result, error, node_type, status, context, meta FROM noetl.event
    WHERE execution_id = %(id)s
       OR execution_id IN (SELECT execution_id FROM noetl.event WHERE parent_execution_id = %(id)s)
    ORDER BY event_id
"""


@dataclass
class Stored:
    """One event as the plane keeps it."""

    execution_id: int
    kind: str
    node: str | None
    result: dict[str, Any] | None
    error: str | None
    node_type: str | None
    status: str | None
    context: dict[str, Any] | None
    meta: dict[str, Any] | None


class Executions:
    """Starts playbooks over HTTP and reads their events where the plane keeps them."""

    def __init__(self, client: httpx.AsyncClient, database: psycopg.AsyncConnection[Any], worker: Any) -> None:
        self._client = client
        self._database = database
        self.worker = worker

    async def credential(self, body: Mapping[str, Any]) -> None:
        (await self._client.post("/api/credentials", json=body)).raise_for_status()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def register(self, content: str) -> str | None:
        """What the plane says against the playbook, if it does."""
        body = {"content": content, "resource_type": "playbook"}
        answer = await self._client.post("/api/catalog/register", json=body)
        return None if answer.is_success else answer.text

    async def observe(
        self, name: str, refusal: str | None, *, below: str = "values", quiet_s: float = QUIET_S
    ) -> Observed:
        if refusal is not None:
            return {"name": name, "outcome": "refused", "text": refusal}
        async with self._places:
            answer = await self._client.post("/api/execute", json={"path": f"{below}/{name}", "workload": {}})
            if answer.status_code != 200:
                return {"name": name, "outcome": "refused", "text": answer.text}
            execution_id = int(answer.json()["execution_id"])
            outcome = await self._outcome(execution_id, quiet_s)
        by_execution = _grouped(await self._events(execution_id))
        found: Observed = {"name": name, "outcome": outcome, **_seen_of(by_execution.pop(execution_id, []))}
        if by_execution:
            found["children"] = [_seen_of(events) for _, events in sorted(by_execution.items())]
        return found

    async def _outcome(self, execution_id: int, quiet_s: float) -> str:
        """Once nothing follows; what still counts as running then is cancelled, as it was for the recording."""
        started = changed = time.monotonic()
        known = 0
        while time.monotonic() - started < PLAYBOOK_S:
            events = await self._events(execution_id)
            if len(events) != known:
                known, changed = len(events), time.monotonic()
            is_over = all(own[-1].kind in ENDED for own in _grouped(events).values())
            if known and not _open_commands(events) and (is_over or time.monotonic() - changed > quiet_s):
                break
            await asyncio.sleep(POLL_S)
        else:
            return "hanging"
        answer = await self._client.get(f"/api/executions/{execution_id}")
        status = str(answer.raise_for_status().json()["status"]).lower()
        if status == "running":
            body = {"reason": "nothing follows"}
            (await self._client.post(f"/api/executions/{execution_id}/cancel", json=body)).raise_for_status()
        return status

    async def _events(self, execution_id: int) -> list[Stored]:
        async with self._database.cursor() as cursor:
            await cursor.execute(EVENTS, {"id": execution_id})
            return [Stored(*row) for row in await cursor.fetchall()]


def _grouped(events: Iterable[Stored]) -> dict[int, list[Stored]]:
    found: dict[int, list[Stored]] = defaultdict(list)
    for event in events:
        found[event.execution_id].append(event)
    return found


def _open_commands(events: Sequence[Stored]) -> int:
    return sum(event.kind == ISSUED for event in events) - sum(event.kind in COMMAND_ENDS for event in events)


def _seen_of(events: Sequence[Stored]) -> Observed:
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.kind in ("call.done", "call.error"):
            seen[str(event.node)].append(_end_of(event))
    return {
        "steps": {step: runs[0] if len(runs) == 1 else {"runs": runs} for step, runs in seen.items()},
        "events": [[event.kind, event.node] for event in events if not event.kind.startswith("batch.")],
        "shapes": shapes(events),
    }


def _end_of(event: Stored) -> dict[str, Any]:
    said = (event.result or {}).get("context") or {}
    return rust_end(event.kind, {**said, "error": event.error or said.get("error")})


async def nats_resources(url: str) -> None:
    """What playbooks with the kinds nats and subscription use."""
    client = await nats.connect(url)
    context = client.jetstream()
    await context.create_key_value(bucket="demo_kv")
    await context.create_object_store(bucket="demo_objects")
    for stream, name in (("DEMO", "demo"), ("POLLED", "polled")):
        await context.add_stream(name=stream, subjects=[f"{name}.>"])
        await context.add_consumer(stream, ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT))
    await client.close()


WorkerStart = Callable[[str, str], AbstractAsyncContextManager[Any]]
"""Starts one worker for (address of NATS, address of the plane)."""


@asynccontextmanager
async def real_plane(
    postgres: PostgresServer, log: Path, worker: WorkerStart = our_worker
) -> AsyncIterator[Executions]:
    prepare_database(postgres)
    where = f"host=127.0.0.1 port={postgres.port} user=noetl dbname=noetl"
    async with NatsServer() as server:
        await make_stream(server.url)
        async with (
            control_plane(postgres, server.url, log) as url,
            worker(server.url, url) as running,
            httpx.AsyncClient(base_url=url, timeout=60) as client,
            await psycopg.AsyncConnection.connect(where, autocommit=True) as database,
        ):
            executions = Executions(client, database, running)
            for body in credentials(postgres.port):
                await executions.credential(body)
            await nats_resources(server.url)
            await executions.credential({"name": "nats_demo", "type": "nats", "data": {"url": server.url}, "tags": []})
            yield executions
