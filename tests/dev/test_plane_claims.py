"""Claims of the development plane: leases, the reaper, what is published later."""

from __future__ import annotations

import json
from typing import Any

import httpx

from dev.served_plane import claim, serving
from nats_client import connected
from noetl_worker.authoring.dev import DevControlPlane, NatsServer, PlaneSettings, RawCommand
from noetl_worker.models import Dialect
from patience import PATIENCE_S, until


async def test_claim_of_a_silent_holder_is_its_own_within_the_lease() -> None:
    async with serving(claims_cache_ttl_s=0.01) as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        await claim(client, issued, "ghost")
        answer = await claim(client, issued, "b")
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "2")


async def test_claim_of_a_silent_holder_is_given_away_after_the_lease() -> None:
    async with serving(claim_lease_s=0.05, claims_cache_ttl_s=0.01) as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        await claim(client, issued, "ghost")
        while (answer := await claim(client, issued, "b")).status_code == 409:
            pass
        assert answer.status_code == 200
        meta = plane.events_of_command(issued.event_id, "command.claimed")[-1].meta
        assert meta == {
            "worker_id": "b",
            "reclaimed": True,
            "reclaimed_from_worker": "ghost",
            "reclaimed_reason": "worker_missing",
        }


async def test_claim_lock_of_somebody_else_has_no_owner() -> None:
    async with serving() as (plane, client):
        (issued,) = await plane.create_commands([RawCommand()])
        plane.claims.hold(issued.event_id)
        answer = await claim(client, issued)
        assert answer.json() == {"detail": {"code": "active_claim", "message": "Command is being claimed"}}
        plane.claims.release(issued.event_id)
        assert (await claim(client, issued)).status_code == 200


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
