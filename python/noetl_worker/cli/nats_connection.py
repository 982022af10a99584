"""The NATS connection of a command that an operator typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import Settings


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """Provide a NATS connection with this name, and close it at the end. Connecting is tried once. Raises the errors of
    `connect`."""
    connection = await connect(settings, name, attempts=1)
    try:
        yield connection
    finally:
        await connection.close()
