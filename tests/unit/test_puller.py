"""The pull loop with a scripted client: what happens between its awaits."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from noetl_worker.jetstream.connection import Connection
from noetl_worker.jetstream.consumer import Durable
from noetl_worker.jetstream.puller import Puller


def test_reconnect_in_the_midst_of_a_pull_that_then_fails_does_not_end_the_loop() -> None:
    """The reconnect forgets all pulls; the one that could not be sent is among them."""

    async def go() -> None:
        connection = Connection("test")

        async def publish(*_: Any, **__: Any) -> None:
            for notify in connection.on_reconnected:
                notify()
            raise ConnectionResetError

        connection.client = cast(
            Any, SimpleNamespace(new_inbox=lambda: "_INBOX.x", publish=publish, is_connected=True, is_closed=False)
        )
        durable = Durable("S", "D", 30.0, 1000, ())
        puller = Puller(connection, durable, window=lambda: 1, deliver=cast(Any, None), ensure=cast(Any, None))
        await puller._refill()
        assert puller.outstanding == 0

    asyncio.run(go())
