"""The pull loop with a scripted client: what happens between its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import virtual_time
from noetl_worker.process import event_loop
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.consumer import Durable
from noetl_worker.remote.jetstream.puller import Puller

anyio_backend = virtual_time.anyio_backend


class Silent:
    """A client whose server has forgotten the inbox: it takes pulls and never answers."""

    is_connected, is_closed = True, False

    def __init__(self, drained: Exception | None = None) -> None:
        self.received: list[Callable[[Any], None]] = []
        """Of each inbox: who is told a message."""
        self.sent: list[str] = []
        """The inbox of each pull."""
        self.forgotten: list[Any] = []
        self._drained = drained

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def publish(self, _subject: str, _body: bytes, reply: str) -> None:
        self.sent.append(reply)

    async def receive(self, _inbox: str, received: Callable[[Any], None]) -> Any:
        self.received.append(received)
        return SimpleNamespace(drain=self._drain, unsubscribe=self._drain)

    async def _drain(self) -> None:
        if self._drained is not None:
            raise self._drained

    def forget(self, subscription: Any) -> None:
        self.forgotten.append(subscription)


@asynccontextmanager
async def pulling(
    client: Silent, connection: Connection | None = None, ensure: Any = None
) -> AsyncIterator[tuple[Puller, asyncio.Future[None]]]:
    """The puller, and its run, which is ended."""
    connection = connection or Connection("test")
    connection.client = cast(Any, client)
    durable = Durable("S", "D", 30.0, 1000, ())
    puller = Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=ensure)
    running = asyncio.ensure_future(puller.run())
    yield puller, running
    await event_loop.end(running)


async def test_reconnect_in_the_midst_of_a_pull_that_then_fails_does_not_end_the_loop() -> None:
    """The reconnect forgets all pulls; the one that could not be sent is among them."""
    connection = Connection("test")

    class Reconnecting(Silent):
        failures = 3

        async def publish(self, *_: Any, **__: Any) -> None:
            if self.failures == 0:
                return
            self.failures -= 1
            for notify in connection.on_reconnected:
                notify()
            raise ConnectionResetError

    client = Reconnecting()
    async with pulling(client, connection) as (puller, running):
        await asyncio.sleep(60)
        assert (client.failures, puller.outstanding, running.done()) == (0, 1, False)


async def test_durable_that_nobody_answers_for_holds_up_no_pull() -> None:
    """A cluster that elects a leader forgets what it is asked: waited for to its end, the question outlasted it."""
    client = Silent()

    async def unanswered() -> Durable:
        await asyncio.Event().wait()
        raise AssertionError

    async def go() -> None:
        async with pulling(client, ensure=unanswered):
            while not client.sent:
                await asyncio.sleep(0)
            client.received[0](SimpleNamespace(subject=client.sent[0], headers={"Status": "503", "Description": ""}))
            while len(client.sent) == 1:
                await asyncio.sleep(1)
            client.is_connected = False  # else the end drains

    await asyncio.wait_for(go(), 4)  # virtual seconds


async def test_inbox_that_stays_silent_is_subscribed_to_anew() -> None:
    """A server that had other permissions for a while has dropped it, and pulls into it bring nothing."""
    client = Silent()
    async with pulling(client):
        await asyncio.sleep(60)
        assert len(client.received) > 2


async def test_inbox_whose_end_failed_is_not_made_again_by_a_reconnect() -> None:
    """Beside the next one it brought each message twice."""
    client = Silent(asyncio.TimeoutError())
    async with pulling(client) as (puller, _):
        await asyncio.sleep(1)
        puller.pause(True)
        await asyncio.sleep(1)
        assert len(client.forgotten) == 1
