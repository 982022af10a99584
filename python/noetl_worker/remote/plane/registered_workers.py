"""Workers in the registry of a plane (protocol/registry.md#the-list)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.remote.plane.answers import MEANING, Meaning
from noetl_worker.remote.plane.client import ControlPlaneClient, refusal

_PATH: Final = "/api/worker/pools"


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """Entry of a worker in the registry of a plane. A field that the plane does not report is empty."""

    name: str
    status: str
    heartbeat: str
    """Time of the last heartbeat, as the plane writes it."""
    host: str
    capacity: int | None
    labels: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        return self.status in ("ready", "active")


async def registered_workers(
    client: ControlPlaneClient, durable: str, *, timeout_s: float | None = None
) -> list[RegisteredWorker]:
    """Return the workers of a durable consumer from the registry of the configured plane. Workers whose entry names no
    durable consumer are included.

    Raises:
        ControlPlaneError: the plane cannot be reached, or refuses.
    """
    answer = await client.send("GET", client.servers.configured + _PATH, timeout_s=timeout_s)
    if MEANING[answer.status] is not Meaning.ACCEPTED:
        raise refusal(f"GET {_PATH}", answer)
    body = answer.json()
    rows = body.get("items") if isinstance(body, dict) else body
    found = [_worker(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [worker for worker in found if worker.labels.get("nats_consumer", durable) == durable]


def _worker(row: Mapping[str, JsonValue]) -> RegisteredWorker:
    capacity = row.get("capacity")
    return RegisteredWorker(
        name=str(row.get("name") or ""),
        status=str(row.get("status") or ""),
        heartbeat=str(row.get("heartbeat") or ""),
        host=str(fields_of(row.get("runtime")).get("hostname") or ""),
        capacity=capacity if isinstance(capacity, int) else None,
        labels=fields_of(row.get("labels")),
    )
