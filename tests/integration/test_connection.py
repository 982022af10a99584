"""The connection to NATS by itself: what becomes of it when nats-py has given up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from noetl_worker.dev.nats_server import NatsServer, free_port
from noetl_worker.jetstream.connection import connect
from noetl_worker.settings import Settings, load_settings


def settings(url: str) -> Settings:
    return load_settings({"NATS_URL": url}, dotenv=Path(os.devnull))


def test_connection_that_could_not_be_reopened_is_closed_still_and_is_reopened_later() -> None:
    """The keepalive looks at `is_closed`: one refused attempt was its last one, and deliveries went to others."""

    async def go() -> None:
        async with NatsServer() as server:
            connection = await connect(settings(server.url), "test")
            await connection.client.close()
            await connection.reopen(settings(f"nats://127.0.0.1:{free_port()}"))
            assert connection.client.is_closed
            await connection.reopen(settings(server.url))
            assert connection.is_connected
            await connection.close()

    asyncio.run(go())
