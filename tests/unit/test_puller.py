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
        return SimpleNamespace(unsubscribe=lambda: asyncio.sleep(0))

    client = SimpleNamespace(new_inbox=lambda: "_INBOX.x", publish=publish, receive=receive, is_closed=False)
    client.is_connected = True
    connection.client = cast(Any, client)
    durable = Durable("S", "D", 30.0, 1000, ())
    puller = Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=cast(Any, None))
    running = asyncio.ensure_future(puller.run())
    await asyncio.sleep(60)
    assert (failures, puller.outstanding, running.done()) == (0, 1, False)
    client.is_connected = False  # else the end drains
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
