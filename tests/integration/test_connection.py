"""The connection to NATS by itself: what becomes of it when nats-py has given up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

from noetl_worker.dev.nats_server import NatsServer, free_port
from noetl_worker.jetstream.connection import Connection, connect
from noetl_worker.settings import Settings, load_settings


def settings(url: str) -> Settings:
    return load_settings({"NATS_URL": url}, dotenv=Path(os.devnull))


def test_flush_and_drain_wait_for_what_was_sent_before_them() -> None:
    """nats-py's own PING overtakes it: the answer says nothing of a publish, and a drain ends before its UNSUB."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576}\r\n')
        while line := await reader.readline():
            read.append(line.split()[0] if line.strip() else b"")  # the body of a PUB is empty
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async def go() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            connection = await connect(settings(url), "test")
            del read[:]
            await connection.client.publish("a", b"")
            await connection.client.flush()
            subscription = await connection.client.subscribe("b")
            await subscription.drain()
            assert [word for word in read if word] == [b"PUB", b"PING", b"SUB", b"UNSUB", b"PING"]
            await connection.close()

    asyncio.run(go())


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


def test_server_that_goes_away_while_the_connection_is_closed_does_not_spoil_the_end() -> None:
    """What `close` raised replaced how the worker had ended."""

    class Gone:
        is_connected, is_closed = True, False

        async def drain(self) -> None:
            raise ConnectionResetError("Connection lost")

        async def close(self) -> None:
            raise ConnectionResetError("Connection lost")

    connection = Connection("test")
    connection.client = cast(Any, Gone())
    asyncio.run(connection.close())


def test_server_that_stands_still_with_much_to_be_read_does_not_hold_up_the_end() -> None:
    """Cancelled, nats-py's drain goes on to flush for 10 s, and wait_for waited for that; close has no limit at all."""

    class Full:
        is_connected, is_closed = True, False

        async def drain(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(10)

        async def close(self) -> None:
            await asyncio.Event().wait()

    async def go() -> None:
        connection = Connection("test")
        connection.client = cast(Any, Full())
        closing = asyncio.ensure_future(connection.close())
        done, _ = await asyncio.wait({closing}, timeout=8)
        assert done

    asyncio.run(go())
