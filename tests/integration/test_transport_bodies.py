"""Bodies on the wire: an answer has an end, a large result is sent without being copied."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import tracemalloc
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from integration.wire import Script, serving, transport
from noetl_worker.errors import AnswerTooLarge, MaybeProcessed
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.transport.transport import MAX_BODY_BYTES, PROBE_S, PROBES
from noetl_worker.settings.settings import load_settings
from patience import PATIENCE_S

STORED = {"ref": "noetl://execution/7/result/start/1", "store": "kv", "scope": "execution"}


def chunks(sizes: Iterable[int], sent: list[int]) -> Script:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for size in sizes:
            writer.write(b"%x\r\n" % size + b"x" * size + b"\r\n")
            await writer.drain()
            sent[0] += size
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return answer


async def test_chunked_answer_without_an_end_is_refused_and_not_read_on() -> None:
    sent = [0]
    async with serving(chunks(repeat(256 * 1024, 100_000), sent)) as url, transport() as wire:
        with pytest.raises(AnswerTooLarge, match=f"larger than {MAX_BODY_BYTES} bytes"):
            await wire.send("GET", url, {}, None, PATIENCE_S)
    assert MAX_BODY_BYTES <= sent[0] < 2 * MAX_BODY_BYTES  # the part that went over the limit may not count as sent


@pytest.mark.parametrize("over", [0, 1])
async def test_chunked_answer_may_be_as_large_as_the_limit(over: int) -> None:
    sizes = [MAX_BODY_BYTES // 64] * 64 + [1] * over
    async with serving(chunks(sizes, [0])) as url, transport() as wire:
        if over:
            with pytest.raises(AnswerTooLarge, match=f"larger than {MAX_BODY_BYTES} bytes"):
                await wire.send("GET", url, {}, None, PATIENCE_S)
        else:
            assert len((await wire.send("GET", url, {}, None, PATIENCE_S)).body) == MAX_BODY_BYTES


async def test_declared_length_over_the_limit_is_refused_before_it_is_read() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 500_000)
        await writer.drain()
        await reader.read()

    async with serving(answer) as url, transport() as wire:
        with pytest.raises(MaybeProcessed, match="larger than"):
            await wire.send("GET", url, {}, None, PATIENCE_S)


def store(received: list[tuple[bytes, Any, int]]) -> Script:
    """Keeps (head, body or its length when large, largest read) of each PUT."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        small = length < 4_000_000
        kept, left = bytearray(), length
        while left:
            piece = await reader.read(min(left, 65_536))
            left -= len(piece)
            if small:
                kept += piece
        received.append((head, json.loads(kept) if small else None, length))
        body = json.dumps({**STORED, "bytes": length}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    return answer


async def put(data: bytes, received: list[Any]) -> int:
    """Store one result; the most memory Python took for it."""
    async with serving(store(received)) as url, transport() as wire:
        plane = Plane(ControlPlaneClient(wire, load_settings({"NOETL_SERVER_URL": url})), url, Dialect.RUST)
        tracemalloc.start()
        try:
            answer = await plane.put_result(7, "start", data, source_step="start")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer["ref"] == STORED["ref"]
        return peak


@pytest.mark.parametrize("size", [10, 1024 * 1024 - 2, 1024 * 1024 + 1, 3_000_000])
async def test_result_arrives_whole_with_its_length_declared(size: int) -> None:
    received: list[Any] = []
    await put(json.dumps("x" * size).encode(), received)
    [(head, body, _)] = received
    assert body == {"name": "start", "scope": "execution", "source_step": "start", "data": "x" * size}
    assert b"chunked" not in head.lower()
    assert b"application/json" in head.lower()


async def test_large_result_is_sent_without_a_copy_of_it() -> None:
    received: list[Any] = []
    data = b'"' + b"x" * 30_000_000 + b'"'
    assert await put(data, received) < 5_000_000
    assert received[0][2] > len(data)


async def test_request_without_a_limit_outlasts_the_timeout_of_the_others() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with serving(slow) as url, transport(NOETL_WORKER_HTTP_TIMEOUT_S="0.1") as wire:
        assert (await wire.send("POST", f"{url}/api/events", {}, b"", None)).body == b"{}"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its own sockets in /proc")
async def test_connection_to_a_machine_that_has_vanished_comes_to_an_end() -> None:
    """Nothing else would end a request without a limit: TCP asks the peer's machine."""
    asked: list[tuple[int, ...]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        peer = writer.get_extra_info("peername")
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if not stat.S_ISSOCK(entry.stat().st_mode):  # a copy of a pipe's end would keep its reader waiting
                    continue
                with socket.socket(fileno=os.dup(int(entry.name))) as other:
                    if other.getsockname() == peer:
                        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
                        levels = [other.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
                        asked.append((*levels, *(other.getsockopt(6, getattr(socket, name)) for name in names)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with serving(answer) as url, transport() as wire:
        await wire.send("POST", url, {}, b"", None)
    assert asked == [(1, PROBE_S, PROBE_S, PROBES)]
