"""Tests of the login's permissions: each test publishes or subscribes once. A NATS server does not show permissions in
any other way.

The server sends a refusal before it answers the next flush. So no wait is needed after the flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import nats

from noetl_worker.errors import JetStreamError, describe
from noetl_worker.remote.jetstream.connection import Connection


async def refused_publish(
    connection: Connection, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> str | None:
    """Publish a message. Return the server's refusal, or None if the server allows the publish.

    Raises:
        JetStreamError: the connection is gone.
    """

    publish = connection.client.publish(subject, body, headers=dict(headers) if headers else None)
    return await _refusal(connection, publish)


async def refused_subscribe(connection: Connection, subject: str) -> str | None:
    """Subscribe and unsubscribe. Return the server's refusal, or None if the server allows the subscription.

    Raises:
        JetStreamError: the connection is gone.
    """

    async def subscribe() -> None:
        subscription = await connection.client.subscribe(subject)
        await connection.client.flush(timeout=5)
        await subscription.unsubscribe()

    return await _refusal(connection, subscribe())


async def _refusal(connection: Connection, trial: Awaitable[None]) -> str | None:
    errors: list[Exception] = []
    connection.last_error = None
    try:
        await trial
        await connection.client.flush(timeout=5)
    except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
        raise JetStreamError(f"NATS does not answer ({describe(error)}): check NATS_URL and the server") from error
    errors += filter(None, [connection.last_error])
    return str(errors[0]) if errors else None


def server_version(connection: Connection) -> str:
    version = connection.client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"
