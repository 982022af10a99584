"""A nats-server with users and JetStream for the tests of the tools that speak NATS, and a client of the test's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, KeyValueConfig, ObjectStoreConfig, StreamConfig

from nats_client import connected
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult, ToolStatus
from noetl_worker.testing import RecordedLogger, tool_context
from noetl_worker.tools.kinds.nats.connections import Address, Connections
from noetl_worker.tools.kinds.nats.nats import NatsTool
from noetl_worker.tools.kinds.subscription.subscription import SubscriptionTool
from noetl_worker.tools.registry import Registry

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
    connection = await connected(server.url, user="all", password="p@ss/word")
    try:
        yield connection
    finally:
        await connection.close()


class Session:
    """One instance of each tool, as a worker has it: calls share its connections."""

    def __init__(self, server: NatsServer, connection: Any) -> None:
        self.server, self.connection = server, connection
        self.connections = Connections()
        self.registry = Registry([NatsTool(self.connections), SubscriptionTool()], plugins=False)
        self.logger = RecordedLogger()

    def leased(self) -> AbstractAsyncContextManager[Any]:
        """The tool's connection as the user who may do everything."""
        return self.connections.lease(Address((self.server.url,), "all", "p@ss/word"))

    async def call(self, operation: str, **config: Any) -> Any:
        """The data of one call, as the user who may do everything."""
        result = await self.result(operation, **config)
        assert result.status is ToolStatus.SUCCESS
        return result.data

    async def result(self, operation: str, *, kind: str = "nats", **config: Any) -> ToolResult:
        context = tool_context(credentials=credentials(self.server), registry=self.registry, logger=self.logger)
        return await self.registry.run_tool(kind, {"operation": operation, "auth": "nats_all", **config}, context)

    async def refused(self, operation: str, **config: Any) -> ToolError:
        with pytest.raises(ToolError) as caught:
            await self.result(operation, **config)
        return caught.value

    async def bucket(self, **options: Any) -> str:
        name = f"kv-{uuid.uuid4().hex[:8]}"
        await self.connection.jetstream().create_key_value(KeyValueConfig(bucket=name, **options))
        return name

    async def store(self) -> str:
        name = f"objects-{uuid.uuid4().hex[:8]}"
        await self.connection.jetstream().create_object_store(name, ObjectStoreConfig(bucket=name))
        return name

    async def stream(self, *bodies: bytes) -> tuple[str, str, str]:
        """(stream, subject, durable consumer) with these messages in it."""
        name = f"S{uuid.uuid4().hex[:8]}"
        context = self.connection.jetstream()
        await context.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
        await context.add_consumer(name, ConsumerConfig(durable_name="reader", ack_wait=30))
        for body in bodies:
            await context.publish(f"{name}.item", body, headers={"X-Kind": "item"})
        return name, f"{name}.item", "reader"
