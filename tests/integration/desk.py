"""An operator's desk: a NATS server, and the command line in front of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from integration.processes import Ended, typed
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.pipeline.delivery.dead_letter import pack
from noetl_worker.remote.jetstream.api import ask
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.settings.settings import Settings, load_settings

STREAM, DURABLE = "NOETL_COMMANDS", "noetl_worker"
SUBJECTS = ["noetl.commands", "noetl.commands.>"]
DEAD_LETTERS = "noetl.dead_letters"


def durable_config(**fields: Any) -> dict[str, Any]:
    """The durable of a worker with these fields changed; None leaves one out."""
    config = {"durable_name": DURABLE, "name": DURABLE, "ack_policy": "explicit", "filter_subjects": SUBJECTS, **fields}
    return {name: value for name, value in config.items() if value is not None}


class Desk:
    """A NATS server and the command line of an operator in front of it."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self.server, self.connection = server, connection
        self.store = DeadLetterStore(connection)

    def url_of(self, user: str, password: str = "p") -> str:
        return f"nats://{user}:{password}@{self.server.host}:{self.server.port}"

    async def type(self, *arguments: str, **variables: str) -> Ended:
        given = {"NATS_URL": self.server.url, **variables}
        return await asyncio.to_thread(typed, *arguments, **given)

    async def ask(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await ask(self.connection.client, subject, body)

    async def make_stream(self, **fields: Any) -> None:
        await self.ask(f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": SUBJECTS, **fields})

    async def make_durable(self, **fields: Any) -> None:
        body = {"stream_name": STREAM, "config": durable_config(**fields), "action": "create"}
        await self.ask(f"CONSUMER.CREATE.{STREAM}.{DURABLE}", body)

    async def durable(self) -> dict[str, Any]:
        return await self.ask(f"CONSUMER.INFO.{STREAM}.{DURABLE}")

    async def messages(self, stream: str = STREAM) -> int:
        return int((await self.ask(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def keep(self, data: bytes = b"{}", *, reason: str = "unknown command: 404", **fields: object) -> None:
        given: dict[str, Any] = {"kind": "unknown_command", "subject": "noetl.commands", "num_delivered": 6, **fields}
        given.setdefault("stream_sequence", 1)
        headers = given.pop("headers", None)
        message_id = given.pop("message_id", uuid.uuid4().hex)
        await self.store.publish(DEAD_LETTERS, pack(data, headers, reason=reason, worker_id="w-1", **given), message_id)


@asynccontextmanager
async def connected(given: Settings) -> AsyncIterator[Connection]:
    connection = await connect(given, "test", attempts=5)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def desk(config: str = "") -> AsyncIterator[Desk]:
    async with NatsServer(config=config) as server, connected(load_settings({"NATS_URL": server.url})) as connection:
        yield Desk(server, connection)


def account_of(*users: str) -> str:
    """The configuration of an account with JetStream; who gives no login may do everything."""
    everybody = ", ".join(("{user: admin, password: p}", *users))
    return f"accounts {{ A {{ jetstream: enabled, users: [{everybody}] }} }}\nno_auth_user: admin"


def who_may_not(verb: str, *subjects: str, name: str = "u") -> str:
    """One of the users of an account, whose password is p."""
    return f"{{user: {name}, password: p, permissions: {{{verb}: {{deny: {json.dumps(subjects)}}}}}}}"
