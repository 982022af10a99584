"""What is on its way to us when pulling ends."""

from __future__ import annotations

import asyncio
import threading

import nats
from nats.aio.client import Client

from integration.test_connection import settings
from noetl_worker.authoring.dev.nats_server import CommandStream, NatsServer
from noetl_worker.remote.jetstream.connection import connect
from noetl_worker.remote.jetstream.consumer import Durable, ensure_durable
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.jetstream.puller import Puller
from noetl_worker.settings.settings import Settings


async def has_one(client: Client, durable: Durable, count: str) -> None:
    while getattr(await client.jetstream().consumer_info(durable.stream, durable.name), count) != 1:
        await asyncio.sleep(0.01)


async def publish_and_see_it_delivered(given: Settings, durable: Durable) -> None:
    client = await nats.connect(given.nats_servers[0])
    await client.jetstream().publish(given.nats_subject, b"{}")
    await has_one(client, durable, "num_ack_pending")
    await client.close()


async def test_message_that_is_on_its_way_when_pulling_ends_is_still_delivered() -> None:
    """An idle worker that was stopped dropped it: it came to another one after ack_wait, not at once."""
    delivered: list[Delivery] = []
    async with NatsServer() as server:
        given = settings(server.url)
        stream = CommandStream(server.url, stream="NOETL_COMMANDS", subject=given.nats_subject)
        await stream.open()
        connection = await connect(given, "test")
        durable = await ensure_durable(connection.client, given)
        puller = Puller(
            connection,
            durable,
            window=lambda: 4,
            deliver=delivered.append,
            ensure=lambda: ensure_durable(connection.client, given),
        )
        pulling = asyncio.ensure_future(puller.run())
        await has_one(connection.client, durable, "num_waiting")
        # Our loop stands still meanwhile: the message is in our socket, and nobody has read it.
        elsewhere = threading.Thread(target=lambda: asyncio.run(publish_and_see_it_delivered(given, durable)))
        elsewhere.start()
        elsewhere.join()
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
        await connection.close()
        await stream.close()
    assert [one.num_delivered for one in delivered] == [1]
