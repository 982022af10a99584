"""A development plane, without NATS and what a client asks of it, or with NATS and a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect
from patience import PATIENCE_S


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[tuple[DevControlPlane, httpx.AsyncClient]]:
    """A plane without NATS, and a client for it."""
    async with (
        DevControlPlane(PlaneSettings(**given)) as plane,
        httpx.AsyncClient(base_url=plane.url, timeout=PATIENCE_S, verify=False) as client,
    ):
        yield plane, client


@asynccontextmanager
async def with_worker(dialect: Dialect) -> AsyncIterator[DevControlPlane]:
    """A plane whose commands a worker runs."""
    async with (
        NatsServer() as nats,
        DevControlPlane(PlaneSettings(dialect=dialect), nats_url=nats.url) as plane,
        local_worker(nats.url, plane.url, dialect),
    ):
        yield plane


async def claim(client: httpx.AsyncClient, command: IssuedCommand, worker_id: str = "w") -> httpx.Response:
    return await client.post(f"/api/commands/{command.event_id}/claim", json={"worker_id": worker_id})


def event(step: str, name: str, payload: dict[str, Any], *, is_actionable: bool = False) -> dict[str, Any]:
    return {"step": step, "name": name, "payload": payload, "actionable": is_actionable}
