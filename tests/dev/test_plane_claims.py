"""Claims of the development plane: leases, the reaper, what is published later."""

from __future__ import annotations

import json
from typing import Any

import httpx

from dev.served_plane import claim, serving
from nats_client import connected
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from patience import PATIENCE_S, until


async def next_message(subscription: Any) -> dict[str, Any]:
    message = await subscription.next_msg(timeout=PATIENCE_S)
    found = json.loads(message.data)
    assert isinstance(found, dict)
    return found


async def test_reaper_republishes_waiting_and_abandoned_commands_with_a_text_id() -> None:
    settings = PlaneSettings(reaper_interval_s=0.05, pending_retry_s=0.5, worker_stale_s=0.05)
    async with NatsServer() as server, DevControlPlane(settings, nats_url=server.url) as plane:
        connection = await connected(server.url)
        subscription = await connection.subscribe("noetl.commands")
        await connection.flush()
        (issued,) = await plane.create_commands([RawCommand()])
        first, again = issued.command_id, str(issued.command_id)
        read: set[object] = set()
        while not read >= {
            first,
            again,
        }:  # in either order: on a busy machine the reaper may be before the first publish
            read.add((await next_message(subscription))["command_id"])
        async with httpx.AsyncClient(base_url=plane.url, verify=False) as client:
            await claim(client, issued, "ghost")
        waiting = plane.reaper.republished
        while plane.reaper.republished == waiting:
            assert (await next_message(subscription))["command_id"] == again
        await connection.close()


async def test_command_that_could_not_be_published_is_published_later() -> None:
    settings = PlaneSettings(publish_recovery_delay_s=0.05)
    async with NatsServer() as server, DevControlPlane(settings, nats_url=server.url) as plane:
        connection = await connected(server.url)
        subscription = await connection.subscribe("noetl.commands")
        await connection.flush()
        (issued,) = await plane.create_commands([RawCommand()], publish=False)
        assert (await next_message(subscription))["command_id"] == issued.command_id
        await until(lambda: plane.command(issued.event_id).published_at is not None, "noted as published")
        await connection.close()


async def test_no_reaper_on_the_rust_plane() -> None:
    async with serving(dialect=Dialect.RUST, reaper_interval_s=0.01, pending_retry_s=0.0) as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        plane.log.set_published([issued.event_id], 1.0)
        for _ in range(5):
            await client.get("/api/health")
        assert plane.reaper.republished == 0
