"""The NATS connection of a CLI command, such as `noetl-worker doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import Settings


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """Provide a NATS connection for a `with` block, and close it after the block.

    The connection is attempted only once. Raises the errors of `connect`.

    Args:
        name: name of the connection, which NATS shows to operators.
    """
    connection = await connect(settings, name, attempts=1)
    try:
        yield connection
    finally:
        await connection.close()
