"""A nats-server with users and JetStream for the tests of the tools that speak NATS, and a client of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nats

from noetl_worker.dev.nats_server import NatsServer

USERS = """
authorization {
  users: [
    {user: all, password: "p@ss/word"}
    {
      user: narrow, password: narrow-word
      permissions: {publish: ["$JS.API.STREAM.INFO.KV_sessions", "open.>"], subscribe: ["_INBOX.>"]}
    }
  ]
}
"""
CREDENTIALS = {
    "nats_all": {"type": "nats", "nats_url": "", "nats_user": "all", "nats_password": "p@ss/word"},
    "nats_narrow": {"type": "nats", "url": "", "user": "narrow", "password": "narrow-word"},
    "nats_wrong": {"type": "nats", "url": "", "user": "all", "password": "wrong-word"},
    "nats_no_url": {"type": "nats", "user": "all", "password": "p@ss/word"},
}


def credentials(server: NatsServer) -> dict[str, dict[str, Any]]:
    """The credentials above with the server's address."""
    addressed: dict[str, dict[str, Any]] = {}
    for alias, data in CREDENTIALS.items():
        addressed[alias] = {key: server.url if key in ("url", "nats_url") else value for key, value in data.items()}
    return addressed


def running(config: str = USERS) -> Iterator[NatsServer]:
    """Start a server, yield it, stop it; its loop stays so that the process does."""
    loop = asyncio.new_event_loop()
    server = NatsServer(config=config)
    try:
        loop.run_until_complete(server.start())
        yield server
    finally:
        loop.run_until_complete(server.close())
        loop.close()


@asynccontextmanager
async def client(server: NatsServer) -> AsyncIterator[Any]:
    """A connection of the test's own, as the user who may do everything."""
    connection = await nats.connect(server.url, user="all", password="p@ss/word")
    try:
        yield connection
    finally:
        await connection.close()
