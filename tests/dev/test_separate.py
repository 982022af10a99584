"""The development plane in a process of its own."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest

from dev.stand_in import stand_in
from noetl_worker.dev import NatsServer, PlaneSettings, RawCommand
from noetl_worker.dev.separate import SeparatePlane
from noetl_worker.models import Dialect


@pytest.mark.parametrize("dialect", list(Dialect), ids=[dialect.value for dialect in Dialect])
async def test_commands_run_and_can_be_looked_at_from_outside(dialect: Dialect) -> None:
    async with (
        NatsServer() as server,
        SeparatePlane(PlaneSettings(dialect=dialect), nats_url=server.url) as plane,
        stand_in(server.url, plane.url, dialect),
    ):
        assert plane.pid != os.getpid()
        issued = await plane.create_commands(RawCommand(), 5)
        execution_id = issued[0]["execution_id"]
        assert await plane.wait_ended(execution_id) == "COMPLETED"
        done = await plane.events(execution_id, "call.done")
        assert {event["command_ref"] for event in done} == {str(one["command_id"]) for one in issued}
        assert (await plane.requests())["POST /api/commands/{event_id}/claim"] == 5
        assert await plane.cpu_s() > 0


async def test_waiting_in_vain_raises_and_the_process_ends_with_the_block() -> None:
    async with SeparatePlane() as plane:
        (issued,) = await plane.create_commands(RawCommand(), 1)
        with pytest.raises(TimeoutError):
            await plane.wait_ended(issued["execution_id"], timeout_s=0.01)
        url = plane.url
    async with httpx.AsyncClient(verify=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/health")


async def test_answer_that_nobody_waited_for_is_not_taken_for_the_next_one() -> None:
    async with SeparatePlane() as plane:
        (issued,) = await plane.create_commands(RawCommand(), 1)
        asking = asyncio.ensure_future(plane.wait_ended(issued["execution_id"], timeout_s=0.01))
        await asyncio.sleep(0)  # the question is on its way
        asking.cancel()
        await asyncio.wait({asking})
        assert await plane.cpu_s() > 0
        assert await plane.requests() == {}
