"""The NATS connection of one command of an operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import Settings


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """Connect, with one try, and close the connection at the end. Raises what `connect` raises."""
    connection = await connect(settings, name, attempts=1)
    try:
        yield connection
    finally:
        await connection.close()
