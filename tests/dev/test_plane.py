"""The development plane: batches of events, what ends an execution, and what is kept."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from dev.served_plane import event, serving
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect


async def report(
    client: httpx.AsyncClient, command: IssuedCommand, *events: dict[str, Any], key: str | None = None
) -> httpx.Response:
    body = {"execution_id": str(command.execution_id), "worker_id": "w", "events": list(events)}
    return await client.post("/api/events/batch", json=body, headers={"Idempotency-Key": key} if key else {})


def done(command: IssuedCommand, response: Any = None) -> list[dict[str, Any]]:
    """call.done, step.exit, command.completed of one command."""
    named = {"command_id": command.command_id}
    result = {"status": "COMPLETED", "context": {}}
    return [
        event(command.node, "call.done", {**named, "response": response or {}, "result": result}, is_actionable=True),
        event(command.node, "step.exit", {**named, "status": "COMPLETED", "result": result}),
        event(command.node, "command.completed", named),
    ]


async def test_unknown_routes_and_methods_answer_as_the_plane(dialect: Dialect) -> None:
    async with serving(dialect=dialect) as (_, client):
        nothing, wrong = await client.get("/api/none"), await client.put("/api/health")
        assert (nothing.status_code, wrong.status_code) == (404, 405)
        if dialect is Dialect.PYTHON:
            assert (nothing.json(), wrong.json()) == ({"detail": "Not Found"}, {"detail": "Method Not Allowed"})
        else:
            assert (nothing.content, wrong.content) == (b"", b"")


async def test_error_of_a_route_is_logged_whatever_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (_, client):
        answer = await client.get("/api/executions/nine")
    assert (answer.status_code, "GET /api/executions/{execution_id}" in caplog.text) == (500, True)


@pytest.mark.parametrize(("letter", "chars"), [("x", 1), ("\x7f", 6), ("я", 6), ("\U0001f600", 12)])
async def test_context_is_kept_up_to_its_limit_in_escaped_json(letter: str, chars: int) -> None:
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        fits = {"t": letter * ((102_400 - len('{"t":""}')) // chars)}
        for context in (fits, {"t": fits["t"] + "." * chars}):
            await report(client, issued, event("start", "step.exit", {"result": {"context": context}}))
        rows = plane.events(issued.execution_id, "step.exit")
        assert [row.result["context"].get("t") for row in rows] == [fits["t"], None]


@pytest.mark.parametrize(("letter", "chars"), [("x", 1), ("я", 6)])
async def test_batch_is_taken_up_to_its_limit_in_escaped_json(letter: str, chars: int) -> None:
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        fits = letter * ((2 * 1024 * 1024 - len('[{"response":""}]')) // chars)
        sent = [event("start", "call.done", {"response": text}) for text in (fits, fits + "." * chars)]
        assert [(await report(client, issued, one)).status_code for one in sent] == [202, 422]


async def test_events_of_a_full_queue_are_stored_and_rescued_by_step_exit_alone() -> None:
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        plane.batches.fault = "ack_timeout"
        lost = await report(client, issued, *done(issued), key="k1")
        assert (lost.status_code, lost.json()["detail"]["code"]) == (503, "ack_timeout")
        plane.batches.fault = None
        request_id = lost.json()["detail"]["request_id"]
        assert (await client.get(f"/api/events/batch/{request_id}/status")).json()["state"] == "failed"
        assert (await report(client, issued, *done(issued), key="k1")).json()["duplicate"]
        await report(client, issued, *done(issued), key="k2")
        await plane.finish_work()
        assert not plane.execution(issued.execution_id).is_over
        exit_only = {**done(issued)[1], "actionable": True}
        await report(client, issued, exit_only, key="k3")
        assert await plane.wait_ended(issued.execution_id) == "COMPLETED"


async def test_step_exit_of_a_list_of_tasks_is_passed_over() -> None:
    """protocol/batches.md#rescue."""
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand(step="start:task_sequence")])
        await report(client, issued, {**done(issued)[1], "actionable": True}, key="k1")
        await plane.finish_work()
        assert not plane.execution(issued.execution_id).is_over


async def test_events_that_cannot_be_queued_are_not_stored() -> None:
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        plane.batches.fault = "queue_unavailable"
        answer = await report(client, issued, *done(issued))
        assert (answer.status_code, "retry-after" in answer.headers) == (503, False)
        assert plane.events(issued.execution_id, "call.done") == []


async def test_second_result_of_a_command_changes_nothing() -> None:
    async with serving() as (plane, client):
        first, second = await plane.create_commands([RawCommand()] * 2)
        for response in ({"n": 1}, {"n": 2}):
            await report(client, first, *done(first, response))
        await plane.finish_work()
        assert plane.execution(first.execution_id).last_result == {"n": 1}
        assert len(plane.events_of_command(first.event_id, "call.done")) == 2
        await report(client, second, *done(second))
        assert await plane.wait_ended(first.execution_id) == "COMPLETED"


async def test_single_events_in_either_order_end_the_execution() -> None:
    async with serving() as (plane, client):
        for order in (("call.done", "command.completed"), ("command.completed", "call.done")):
            (issued,) = await plane.create_commands([RawCommand()])
            for name in order:
                body = {"execution_id": issued.execution_id, "step": "start", "event_type": name}
                await client.post("/api/events", json={**body, "context": {"command_id": issued.command_id}})
            assert await plane.wait_ended(issued.execution_id) == "COMPLETED"


async def test_plane_ends_while_what_it_publishes_is_under_way() -> None:
    """nats-py's flush waits with asyncio.wait_for, which before 3.12 swallows a cancellation that meets its answer."""

    class Publisher:
        def __init__(self) -> None:
            self.begun = asyncio.Event()

        async def publish(self, _: Any) -> bool:
            self.begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return True

        async def close(self) -> None: ...

    plane = DevControlPlane(PlaneSettings(reaper_interval_s=60))
    await plane.start()
    [one] = await plane.create_commands([RawCommand()], publish=False)
    plane.dispatcher.publisher = publisher = Publisher()
    plane.dispatcher.requeue(plane.command(one.event_id), as_text=False)
    plane.batches.queued.set()
    await publisher.begun.wait()
    await plane.close()
