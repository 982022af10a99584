"""The traps of the Rust control plane, which the development plane has too."""

from __future__ import annotations

from typing import Any

from dev.served_plane import claim, serving
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect


def rust_event(issued: IssuedCommand, name: str, event_id: int, **meta: Any) -> dict[str, Any]:
    result = {"status": "success", "context": {"data": {"n": 1}}}
    return {
        "event_id": event_id,
        "execution_id": issued.execution_id,
        "event_type": name,
        "step": issued.node,
        "status": "success",
        "context": {"command_id": issued.command_id, "result": result},
        "meta": meta,
    }


async def test_single_completed_must_be_above_the_ids_of_the_batch_before() -> None:
    async with serving(dialect=Dialect.RUST) as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        await claim(client, issued)
        named = {"command_id": issued.command_id}
        early = plane.log.ids.next()
        body = {
            "execution_id": str(issued.execution_id),
            "events": [
                {"step": "start", "name": "command.started", "payload": named},
                {"step": "start", "name": "call.done", "payload": {**named, "result": {"status": "success"}}},
            ],
        }
        ids = (await client.post("/api/events/batch", json=body)).json()["event_ids"]
        await client.post("/api/events", json=rust_event(issued, "command.completed", early, **named))
        assert plane.execution(issued.execution_id).status == "RUNNING"
        await client.post("/api/events", json=rust_event(issued, "command.completed", ids[-1] + 1, **named))
        assert plane.execution(issued.execution_id).status == "COMPLETED"


async def test_catalog_has_the_workload_and_the_steps_and_the_rest_in_the_text_alone() -> None:
    """As `make compat` finds it in the real one (protocol/executions.md#the-catalog)."""
    content = "{metadata: {path: p}, workload: {n: 1}, workbook: [{name: w}], workflow: [{step: start}]}"
    async with serving(dialect=Dialect.RUST) as (_, client):
        registered = await client.post("/api/catalog/register", json={"content": content})
        named = {"catalog_id": registered.json()["catalog_id"]}
        entry = (await client.post("/api/catalog/resource", json=named)).json()
    assert (entry["payload"], entry["layout"]) == ({"n": 1}, [{"step": "start"}])
    assert entry["content"] == content
