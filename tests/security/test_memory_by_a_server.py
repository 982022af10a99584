"""A server that a command asks sends without end."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
ZEROS = bytes(MEBIBYTE)


class Server:
    """Speaks as much of NATS as a client needs to ask once; then it sends the pieces of `answer(inbox and sid)`."""

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]]) -> None:
        self.sent = 0
        self.url = ""
        self.has_ended = asyncio.Event()
        self.goes_on = asyncio.Event()
        """Whether anything is sent after the first piece."""
        self.goes_on.set()
        self._answer = answer

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
                    for piece in self._answer(inbox + b" " + sid):
                        writer.write(piece)
                        await writer.drain()
                        self.sent += len(piece)
                        await self.goes_on.wait()
                    return
        except OSError:
            pass
        finally:
            self.has_ended.set()
            writer.close()


@asynccontextmanager
async def hostile(answer: Callable[[bytes], Iterator[bytes]]) -> AsyncIterator[Server]:
    server = Server(answer)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server


def without_end(head: bytes, piece: bytes = ZEROS, size: int = FLOOD) -> Iterator[bytes]:
    return itertools.chain([head], itertools.repeat(piece, size // len(piece)))


FLOODS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "message of 100 GB": lambda to: without_end(b"MSG " + to + b" 100000000000\r\n"),
    "line without end": lambda to: without_end(b"MSG ", b"x" * MEBIBYTE),
    "messages without end": lambda to: without_end(b"", b"MSG " + to + b" 1048576\r\n" + ZEROS + b"\r\n"),
    "messages for nobody": lambda to: without_end(b"", b"MSG x 999 1048576\r\n" + ZEROS + b"\r\n"),
    "headers without end": lambda to: without_end(b"HMSG " + to + b" 30000000 30000000\r\n", b"a: b\r\n" * 170_000),
}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "request": ("nats", {"operation": "js_stream_info", "stream": "S", "timeout": 0.5}),
    "pull": ("nats", {"operation": "js_consume", "stream": "S", "consumer": "c", "batch": 1000, "timeout_ms": 2000}),
    "poll": ("subscription", {"source": "nats", "stream": "S", "consumer": "c", "timeout_ms": 2000}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FLOODS)
async def test_nats_server_is_read_within_the_budget_of_a_command(name: str, call: str) -> None:
    """A NATS message of 100 GB, endless lines or messages."""
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
    """The rest arrives after the command timed out."""
    async with hostile(lambda to: without_end(b"MSG " + to + b" 30000000\r\n")) as server:
        server.goes_on.clear()
        registry = Registry(plugins=False)
        config = {"operation": "js_stream_info", "stream": "S", "url": server.url, "timeout": 0.2}
        result = await registry.run_tool("nats", config, tool_context(registry=registry))
        assert result.status is ToolStatus.TIMEOUT
        server.goes_on.set()
        await server.has_ended.wait()
        await registry.aclose()
    assert server.sent <= 16 * MEBIBYTE


# ── Postgres ────────────────────────────────────────────────────────────────────────────────────

MOST_OF_POSTGRES = 96 * MEBIBYTE
"""64 MiB, and what the kernel takes of a connection on both sides."""
KIBIBYTES = 256
TEXT_COLUMN = b"x\0" + struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)


def framed(kind: bytes, body: bytes = b"", rest: int = 0) -> bytes:
    """A message, to its last `rest` bytes."""
    return kind + struct.pack("!I", len(body) + rest + 4) + body


def value(size: int) -> bytes:
    """The beginning of a row."""
    return framed(b"D", struct.pack("!HI", 1, size), size)


HELLO = framed(b"R", struct.pack("!I", 0)) + framed(b"S", b"client_encoding\0UTF8\0")
READY = framed(b"Z", b"I")
DONE = framed(b"C", b"SELECT 1\0") + READY
ROWS = framed(b"T", struct.pack("!H", 1) + TEXT_COLUMN)
ONE_ROW = ROWS + value(1) + b"1" + DONE


def large_rows() -> Iterator[bytes]:
    yield ROWS
    for _ in range(2 * FLOOD // MEBIBYTE // 16):
        yield value(16 * MEBIBYTE)
        yield from itertools.repeat(ZEROS, 16)


class Postgres:
    """Speaks as much of the protocol as a statement needs; `answer(query)`: what it sends, None: that it is done."""

    def __init__(
        self, answer: Callable[[bytes], Iterator[bytes] | None], hello: Callable[[], Iterator[bytes]] | None = None
    ) -> None:
        self.sent = 0
        self.connections = 0
        self.has_ended = asyncio.Event()
        self._answer = answer
        self._hello = hello or (lambda: iter([HELLO + READY]))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._read(reader)
            await self._send(writer, self._hello())
            while self.sent < 2 * FLOOD:
                kind = await reader.readexactly(1)
                body = await self._read(reader)
                if kind == b"P":
                    writer.write(framed(b"1") + framed(b"2"))
                if kind in b"PQ":
                    await self._send(writer, self._answer(body) or iter([DONE]))
        self.has_ended.set()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)

    async def _send(self, writer: asyncio.StreamWriter, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)

    async def run(self, query: str, **config: Any) -> Any:
        """Once, by a tool of its own."""
        async with self.address() as address:
            return (await arun_tool("postgres", {**address, "query": query, **config})).data

    @asynccontextmanager
    async def address(self) -> AsyncIterator[dict[str, Any]]:
        pytest.importorskip("psycopg")
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            yield {"host": "127.0.0.1", "port": port, "user": "u", "database": "d", "sslmode": "disable"}


@pytest.mark.parametrize("name", ["value", "rows", "notice"])
@pytest.mark.parametrize("params", [[], [1]], ids=["text", "parameters"])
async def test_postgres_server_is_read_within_a_budget(params: list[int], name: str) -> None:
    """Postgres values of 1 GB, rows of 16 MB, endless notices."""
    floods = {
        "value": lambda: without_end(ROWS + value(1 << 30), size=2 * FLOOD),
        "rows": large_rows,
        "notice": lambda: without_end(framed(b"N", b"", 1 << 30), size=2 * FLOOD),
    }
    server = Postgres(lambda query: floods[name]() if b"huge" in query else None)
    with pytest.raises(ToolError, match="the server sends more than 64 MiB at once") as caught:
        await server.run("select huge + $1" if params else "select huge", params=params)
    await server.has_ended.wait()
    assert caught.value.kind == "resource"
    assert server.sent <= MOST_OF_POSTGRES


async def test_postgres_server_is_read_within_a_budget_while_it_is_connected_to() -> None:
    """An endless greeting."""
    server = Postgres(lambda query: None, lambda: without_end(HELLO + framed(b"N", b"", 1 << 30), size=2 * FLOOD))
    with pytest.raises(ToolError, match="the server sends more than 64 MiB at once"):
        await server.run("select 1")
    await server.has_ended.wait()
    assert server.sent <= MOST_OF_POSTGRES


async def test_postgres_connection_that_is_flooded_between_two_commands_is_closed() -> None:
    """A flood at a connection's reset, before the next command."""

    def answer(query: bytes) -> Iterator[bytes]:
        is_reset = b"CLOSE ALL" in query
        return without_end(ROWS + value(1 << 30), size=2 * FLOOD) if is_reset else iter([ONE_ROW])

    server = Postgres(answer)
    registry = Registry(plugins=False)
    async with server.address() as address:
        for _ in range(2):
            result = await registry.run_tool(
                "postgres", {**address, "query": "select 1"}, tool_context(registry=registry)
            )
            assert result.data["rows"] == [{"x": "1"}]
        await server.has_ended.wait()
        await registry.aclose()
    assert server.connections == 2
    assert server.sent <= MOST_OF_POSTGRES


async def test_rows_of_postgres_that_are_left_out_are_not_counted() -> None:
    """(no attack) 160 MiB, of which one row is wanted."""
    row = value(KIBIBYTES * 1024) + bytes(b"x" * KIBIBYTES * 1024)
    server = Postgres(lambda query: itertools.chain([ROWS], itertools.repeat(row, 640), [DONE]))
    data = await server.run("select huge", max_rows=1)
    assert (data["row_count"], data["truncated"]) == (1, True)


def flooding_thread(listening: socket.socket, sent: list[int]) -> None:
    """As fast as it can, not by turns with who reads."""
    connection, _ = listening.accept()
    with connection, suppress(OSError):
        connection.recv(1024)
        connection.sendall(HELLO + READY)
        connection.recv(1024)
        connection.sendall(ROWS + value(1 << 30))
        while sum(sent) < 1 << 30:
            sent.append(connection.send(bytes(MEBIBYTE)))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what comes")
async def test_postgres_server_that_sends_faster_than_libpq_returns_is_cut_off() -> None:
    """1 GB from the same machine in one libpq call."""
    pytest.importorskip("psycopg")
    sent: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=flooding_thread, args=(listening, sent))
        thread.start()
        address = {"host": "127.0.0.1", "port": listening.getsockname()[1], "user": "u", "database": "d"}
        with pytest.raises(ToolError, match="the server sends more than 64 MiB at once"):
            await arun_tool("postgres", {**address, "sslmode": "disable", "query": "select huge"})
        thread.join()
    assert sum(sent) <= 4 * 64 * MEBIBYTE
