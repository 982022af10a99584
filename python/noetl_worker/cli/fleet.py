"""The states of all workers of a durable, for `noetl-worker top --fleet`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from noetl_worker.cli.nats_connection import connected
from noetl_worker.remote.jetstream.fleet import ask_all
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.registered_workers import registered_workers
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import Settings


async def fleet_states(settings: Settings) -> list[dict[str, Any]]:
    """Return the state of each worker of the durable.

    With NOETL_WORKER_FLEET=nats the workers are asked over NATS, else the plane's registry of workers is read.

    Raises:
        NatsUnavailable, ControlPlaneError: NATS or the plane cannot be reached.
    """
    if settings.fleet == "nats":
        async with connected(settings, "noetl-worker top") as connection:
            looks = await ask_all(connection.client, settings)
        advice = "start workers with NOETL_WORKER_FLEET=nats, or ask the plane with NOETL_WORKER_FLEET=off"
    else:
        async with ControlPlaneClient(open_transport(settings, max_connections=1), settings) as client:
            rows = await registered_workers(client, settings.nats_consumer)
        looks = [{"address": row.host or "-", "registered": asdict(row)} for row in rows]
        advice = f"no worker is registered at {settings.server_url}"
    return looks or [{"address": settings.nats_consumer, "error": f"no worker of this durable answers: {advice}"}]
