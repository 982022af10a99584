"""An MCP server sends its event stream in the form that is slowest to read."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from holds import HOLDS_TIMES
from loops import Threads
from noetl_worker.errors import ToolError
from noetl_worker.testing import arun_tool
from noetl_worker.tools.kinds.mcp.mcp import McpTool

ANSWER = b'{"jsonrpc":"2.0","id":2,"result":{"tools":[],"pad":"%b"}}'


async def listed(body: bytes, piece: int = 65_536, kind: str = "text/event-stream", **named: str) -> tuple[Any, int]:
    """The data of tools/list, and how often it was asked for."""
    asked, headers = 0, {f"content-{name}": value for name, value in named.items()}

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            if start % 8_192 < piece:
                await asyncio.sleep(0)  # as a connection does now and then
            yield body[start : start + piece]

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if b'"initialize"' in request.content:
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}})
        if b"notifications/" in request.content:
            return httpx.Response(202)
        asked += 1
        return httpx.Response(200, headers={"content-type": kind, **headers}, content=pieces())

    tool = McpTool(httpx.MockTransport(answer))
    config = {"endpoint": "http://a.test/mcp", "method": "tools/list"}
    try:
        return (await arun_tool(tool, config)).data, asked
    except ToolError as error:
        return error, asked


async def test_line_in_chunks_of_one_byte_is_read_in_one_pass() -> None:
    """400 kB of one line, a byte at a time: each byte copied all before it, a minute of the loop."""
    before_s = time.thread_time()
    data, _ = await listed(b"data: " + ANSWER % (b"a" * 400_000) + b"\n\n", piece=1)
    assert len(data["result"]["pad"]) == 400_000
    assert not HOLDS_TIMES or time.thread_time() - before_s < 5


async def test_pages_of_a_list_have_one_bound_together() -> None:
    """A list of tools of 50 pages with 16 MB each."""
    page = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":["' + b"a" * 4_000_000 + b'"],"nextCursor":"more"}}'
    error, asked = await listed(b"[" + b",".join(page % number for number in (2, 3)) + b"]", kind="application/json")
    assert isinstance(error, ToolError)
    assert (error.kind, asked) == ("resource", 3)
    assert "with more than 16777216 bytes" in str(error)


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""], ids=["blank line", "line", "nothing"])
async def test_large_event_is_parsed_off_the_loop_whatever_ends_it(end: bytes) -> None:
    """A large event without the blank line at its end."""
    threads = Threads()
    data, _ = await listed(b"data: " + ANSWER % (b"a" * (2 << 20)) + end)
    assert len(data["result"]["pad"]) == 2 << 20
    assert threads.given >= 2  # parsed, and made the result


async def test_packed_stream_is_unpacked_within_the_bound() -> None:
    """64 MB in 64 kB of a packed event stream."""
    packed = await asyncio.to_thread(gzip.compress, b"data: " + b"a" * (64 << 20))
    error, _ = await listed(packed, encoding="gzip")
    assert isinstance(error, ToolError)
    assert "with more than 16777216 bytes" in str(error)
    data, _ = await listed(gzip.compress(b"data: " + ANSWER % b"" + b"\n\n"), encoding="gzip")
    assert data["result"]["tools"] == []


async def test_many_short_lines_take_no_more_memory_than_their_bytes() -> None:
    """1 MB of empty `data:` lines in one event."""
    lines = b"data:\n" * 170_000
    tracemalloc.start()
    try:
        await listed(lines)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(lines)
    finally:
        tracemalloc.stop()
