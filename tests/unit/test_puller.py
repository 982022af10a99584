"""The pull loop with a scripted client: what happens between its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import virtual_time
from noetl_worker.jetstream.connection import Connection
from noetl_worker.jetstream.consumer import Durable
from noetl_worker.jetstream.puller import Puller
from noetl_worker.process import event_loop

anyio_backend = virtual_time.anyio_backend


async def test_reconnect_in_the_midst_of_a_pull_that_then_fails_does_not_end_the_loop() -> None:
    """The reconnect forgets all pulls; the one that could not be sent is among them."""
    connection, failures = Connection("test"), 3

    async def publish(*_: Any, **__: Any) -> None:
        nonlocal failures
        if failures == 0:
            return
        failures -= 1
        for notify in connection.on_reconnected:
            notify()
        raise ConnectionResetError

    async def receive(*_: Any) -> Any:
        return SimpleNamespace(drain=lambda: asyncio.sleep(0))

    client = SimpleNamespace(new_inbox=lambda: "_INBOX.x", publish=publish, receive=receive, is_closed=False)
    client.is_connected = True
    connection.client = cast(Any, client)
    durable = Durable("S", "D", 30.0, 1000, ())
    puller = Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=cast(Any, None))
    running = asyncio.ensure_future(puller.run())
    await asyncio.sleep(60)
    assert (failures, puller.outstanding, running.done()) == (0, 1, False)
    await event_loop.end(running)


async def test_durable_that_nobody_answers_for_holds_up_no_pull() -> None:
    """A cluster that elects a leader forgets what it is asked: waited for to its end, the question outlasted it."""

    async def go() -> None:
        connection, sent, told = Connection("test"), [], []

        async def publish(_subject: str, _body: bytes, reply: str) -> None:
            sent.append(reply)

        async def receive(_inbox: str, received: Callable[[Any], None]) -> Any:
            told.append(received)
            return SimpleNamespace(unsubscribe=nothing)

        async def nothing() -> None: ...

        async def unanswered() -> Durable:
            await asyncio.Event().wait()
            raise AssertionError

        client = SimpleNamespace(new_inbox=lambda: "_INBOX.x", publish=publish, receive=receive, is_closed=False)
        client.is_connected = True
        connection.client = cast(Any, client)
        durable = Durable("S", "D", 30.0, 1000, ())
        puller = Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=unanswered)
        running = asyncio.ensure_future(puller.run())
        while not sent:
            await asyncio.sleep(0)
        told[0](SimpleNamespace(subject=sent[0], headers={"Status": "503", "Description": ""}))
        while len(sent) == 1:
            await asyncio.sleep(1)
        client.is_connected = False  # else the end drains
        await event_loop.end(running)

    await asyncio.wait_for(go(), 4)  # virtual seconds


class Silent:
    """A client whose server has forgotten the inbox: it takes pulls and never answers."""

    is_connected, is_closed = True, False

    def __init__(self, drained: Exception | None = None) -> None:
        self.subscribed = 0
        self.forgotten: list[Any] = []
        self._drained = drained

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def publish(self, *_: Any, **__: Any) -> None: ...

    async def receive(self, *_: Any) -> Any:
        self.subscribed += 1
        return SimpleNamespace(drain=self._drain)

    async def _drain(self) -> None:
        if self._drained is not None:
            raise self._drained

    def forget(self, subscription: Any) -> None:
        self.forgotten.append(subscription)


def pulling(client: Silent) -> Puller:
    connection = Connection("test")
    connection.client = cast(Any, client)
    durable = Durable("S", "D", 30.0, 1000, ())
    return Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=cast(Any, None))


async def test_inbox_that_stays_silent_is_subscribed_to_anew() -> None:
    """A server that had other permissions for a while has dropped it, and pulls into it bring nothing."""
    client = Silent()
    running = asyncio.ensure_future(pulling(client).run())
    await asyncio.sleep(60)
    assert client.subscribed > 2
    await event_loop.end(running)


async def test_inbox_whose_end_failed_is_not_made_again_by_a_reconnect() -> None:
    """Beside the next one it brought each message twice."""
    client = Silent(asyncio.TimeoutError())
    puller = pulling(client)
    running = asyncio.ensure_future(puller.run())
    await asyncio.sleep(1)
    puller.pause(True)
    await asyncio.sleep(1)
    assert len(client.forgotten) == 1
    await event_loop.end(running)
