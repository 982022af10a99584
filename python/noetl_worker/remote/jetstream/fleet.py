"""Status of all workers of a durable, over NATS: one request, which every worker answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import nats
import structlog
from nats.aio.msg import Msg

from noetl_worker.errors import describe
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.settings.settings import Settings

ANSWERS_S: Final = 1.0
"""Seconds to wait for the workers' answers. The wait always lasts this long, because the number of workers is unknown.
"""
_LOOK_S: Final = 1.0
_HEADROOM_BYTES: Final = 4096
log = structlog.get_logger("noetl_worker.fleet")


def status_subject(settings: Settings) -> str:
    """Return the subject on which the workers of this durable are asked for their status."""
    return f"noetl.workers.{settings.nats_consumer}.status"


async def answer_until_cancelled(
    connection: Connection, settings: Settings, state: Callable[[], Awaitable[tuple[int, Any]]]
) -> None:
    """Answer each request for this worker's status until cancelled.

    Args:
        state: returns the HTTP status and the body of GET /debug/inflight. The worker answers with this body.
    """
    subscribed: Client | None = None

    async def answer(asked: Msg) -> None:
        _, body = await state()
        address = {"address": socket.gethostname()}
        try:
            await asked.respond(_fitting({**address, **body}, connection.client.max_payload))
        except (nats.errors.Error, OSError) as error:
            advice = "ask again: this worker is missing in one list of workers. If this lasts, check the NATS server"
            log.warning("status_request_not_answered", error=describe(error), advice=advice)

    while True:
        if connection.client is not subscribed and connection.is_connected:
            try:
                await connection.client.subscribe(status_subject(settings), cb=answer)
                subscribed = connection.client
            except (nats.errors.Error, OSError) as error:
                log.debug(
                    "fleet_subscription_failed", error=describe(error)
                )  # the client is closing: another follows soon
        await asyncio.sleep(_LOOK_S)


def _fitting(body: Mapping[str, Any], most_bytes: int) -> bytes:
    """Return the status as JSON for one NATS message. If the JSON is too large, drop the commands that started last."""
    commands = sorted(body.get("commands") or (), key=lambda command: -(command.get("seconds") or 0.0))
    while (
        len(packed := json.dumps({**body, "commands": commands}).encode()) > most_bytes - _HEADROOM_BYTES and commands
    ):
        del commands[len(commands) // 2 :]
    return packed


async def ask_all(client: Client, settings: Settings) -> list[dict[str, Any]]:
    """Ask all workers of this durable for their status. Return the answers in the order of the workers' ids.

    A message that is not a worker's answer is ignored.
    """
    found: list[dict[str, Any]] = []

    async def note(message: Msg) -> None:
        try:
            body = json.loads(message.data)
        except ValueError:  # a status of the server: nobody listens
            return
        if isinstance(body, dict) and "address" in body:
            found.append(body)

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=note)
    await client.publish(status_subject(settings), b"", reply=inbox)
    await asyncio.sleep(ANSWERS_S)
    await subscription.unsubscribe()
    return sorted(found, key=lambda body: str((body.get("worker") or {}).get("worker_id")))
