"""Door 3: a server that a command asks sends without end, or one thing of any size: what is read of it is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.registry import Registry

MEBIBYTE = 1024 * 1024
MOST = 48 * MEBIBYTE
"""What is read for a command of NATS (32 MiB), with what the kernel takes of a connection on both sides."""
FLOOD = 96 * MEBIBYTE
"""Where the servers here end."""
INFO = {"server_id": "x", "version": "2.10.0", "max_payload": 100_000_000_000, "headers": True}
Speak = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


class Server:
    """Speaks as much of NATS as a client needs to ask once; then `speak(writer, sid)`."""

    def __init__(self, speak: Speak) -> None:
        self.sent = 0
        self.has_ended = asyncio.Event()
        self._speak = speak
        self.url = ""

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()
        self.sent += len(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
            sid = b""
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"SUB "):
                    sid = line.split()[-1]
                elif line.startswith((b"PUB ", b"HPUB ")):
                    inbox = line.split()[2]
                    await self._speak(writer, inbox + b" " + sid)
                    return
        except OSError:
            pass
        finally:
            self.has_ended.set()
            writer.close()


@asynccontextmanager
async def hostile(speak: Callable[[Server], Speak]) -> AsyncIterator[Server]:
    server = Server(lambda writer, to: speak(server)(writer, to))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server


def flood(head: Callable[[bytes], bytes], piece: Callable[[bytes], bytes]) -> Callable[[Server], Speak]:
    def of(server: Server) -> Speak:
        async def speak(writer: asyncio.StreamWriter, to: bytes) -> None:
            await server.send(writer, head(to))
            while server.sent < FLOOD:
                await server.send(writer, piece(to))

        return speak

    return of


def nothing(to: bytes) -> bytes:
    return b""


def zeros(to: bytes) -> bytes:
    return bytes(MEBIBYTE)


FLOODS = {
    "message of 100 GB": flood(lambda to: b"MSG " + to + b" 100000000000\r\n", zeros),
    "line without end": flood(lambda to: b"MSG ", lambda to: b"x" * MEBIBYTE),
    "messages without end": flood(nothing, lambda to: b"MSG " + to + b" 1048576\r\n" + bytes(MEBIBYTE) + b"\r\n"),
    "messages for nobody": flood(nothing, lambda to: b"MSG x 999 1048576\r\n" + bytes(MEBIBYTE) + b"\r\n"),
    "headers without end": flood(
        lambda to: b"HMSG " + to + b" 30000000 30000000\r\n", lambda to: b"a: b\r\n" * 170_000
    ),
}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "request": ("nats", {"operation": "request", "subject": "s", "timeout_ms": 500}),
    "pull": ("nats", {"operation": "js_consume", "stream": "S", "consumer": "c", "batch": 1000, "timeout_ms": 2000}),
    "poll": ("subscription", {"source": "nats", "stream": "S", "consumer": "c", "timeout_ms": 2000}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FLOODS)
async def test_nats_server_is_read_within_the_budget_of_a_command(name: str, call: str) -> None:
    """A `MSG` of 100 GB, a line or messages without end: all of it was kept, until the worker was killed."""
    kind, config = CALLS[call]
    async with hostile(FLOODS[name]) as server:
        with suppress(ToolError):  # or the first message is the answer
            await arun_tool(kind, {**config, "url": server.url})
        await server.has_ended.wait()
    assert server.sent <= MOST


async def test_command_says_that_its_nats_server_sent_too_much() -> None:
    """(no attack) And what the bound is."""
    kind, config = CALLS["pull"]
    async with hostile(FLOODS["message of 100 GB"]) as server:
        with pytest.raises(ToolError, match="the server sent more than 32 MiB for one command") as caught:
            await arun_tool(kind, {**config, "url": server.url})
    assert (caught.value.kind, caught.value.retryable) == ("resource", False)


async def test_nats_server_is_not_read_on_when_its_command_has_ended() -> None:
    """The command times out within a message; the rest of it, and all that follows, comes then."""
    has_timed_out = asyncio.Event()

    def late(server: Server) -> Speak:
        async def speak(writer: asyncio.StreamWriter, to: bytes) -> None:
            await server.send(writer, b"MSG " + to + b" 30000000\r\n")
            await has_timed_out.wait()
            while server.sent < FLOOD:
                await server.send(writer, bytes(MEBIBYTE))

        return speak

    async with hostile(late) as server:
        registry = Registry(plugins=False)
        config = {"operation": "request", "subject": "s", "url": server.url, "timeout": 0.2, "timeout_ms": 5000}
        result = await registry.run_tool("nats", config, tool_context(registry=registry))
        assert result.status is ToolStatus.TIMEOUT
        has_timed_out.set()
        await server.has_ended.wait()
        await registry.aclose()
    assert server.sent <= 16 * MEBIBYTE
