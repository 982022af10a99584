"""A NATS server, or whoever publishes there, sends what is slow to read or cannot be read."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loops import Threads
from noetl_worker.errors import ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.testing import arun_tool

from .test_memory_by_a_server import hostile

MANY = b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"
LONG_HEADER = b"NATS/1.0\r\nContent-Type: multipart/x" + b';"' * 400_000 + b"\r\n\r\n"


def message(body: bytes, headers: bytes = b"") -> Callable[[bytes], Iterator[bytes]]:
    if headers:
        sizes = b" %d %d\r\n" % (len(headers), len(headers) + len(body))
        return lambda to: iter([b"HMSG " + to + sizes + headers + body + b"\r\n"])
    return lambda to: iter([b"MSG " + to + b" %d\r\n" % len(body) + body + b"\r\n"])


async def run(answer: Callable[[bytes], Iterator[bytes]], **config: Any) -> Any:
    """With the first piece of an answer alone; the server closes nothing before."""
    async with hostile(answer) as server:
        server.goes_on.clear()
        try:
            return await arun_tool("nats", {"url": server.url, **config})
        finally:
            server.goes_on.set()


@pytest.mark.parametrize(
    "config",
    [{"operation": "js_stream_info", "stream": "S"}, {"operation": "js_publish", "subject": "s", "data": "x"}],
    ids=["api", "publish"],
)
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (MANY, "more than 250,000 JSON values"),
        (b'{"a":' + b"[" * 100_000, "not JSON"),
        (b"[1]", "JSON, but not an object"),
        (b'{"error": 7}', "nats-py cannot read the server's answer"),
        (b'{"config": 7}', "nats-py cannot read the server's answer"),
    ],
    ids=["dense", "deep", "list", "error", "fields"],
)
async def test_answer_of_jetstream_that_cannot_be_read_is_refused(
    answer: bytes, problem: str, config: dict[str, Any]
) -> None:
    """12 MB of `[],` as an answer of JetStream, which its library parses on the loop: 3 s."""
    with pytest.raises(ToolError, match=problem) as caught:
        await run(message(answer), **config)
    assert (caught.value.kind, caught.value.retryable) == ("parse", False)


def stored(headers: bytes) -> bytes:
    about = {"subject": "s", "seq": 1, "time": "2026-01-01T00:00:00Z", "data": ""}
    return json.dumps({"message": {**about, "hdrs": base64.b64encode(headers).decode()}}).encode()


async def test_headers_of_a_stored_message_are_read_in_one_pass() -> None:
    """800 kB of `;"` in a Content-Type, for the library's parser of mail: minutes of the loop."""
    result = await run(message(stored(LONG_HEADER)), operation="js_get_msg", stream="S", seq=1)
    assert len(result.data["headers"]["Content-Type"]) == 800_011


async def test_headers_of_a_stored_message_have_the_bound_of_any_others() -> None:
    """The same, longer than a message's headers may be."""
    with pytest.raises(ToolError, match="headers of more than 1 MiB"):
        await run(message(stored(LONG_HEADER * 2)), operation="js_get_msg", stream="S", seq=1)


@pytest.mark.parametrize("headers", [b"NATS/1.0 404 \xff\r\n\r\n", b"NATS"], ids=["status", "short"])
async def test_message_whose_headers_cannot_be_read_is_read_without_them(headers: bytes) -> None:
    """Headers that end the library's reading without a word: whoever uses the connection waits in vain."""
    taken = message(b'{"stream": "S", "seq": 7}', headers)
    result = await run(taken, operation="js_publish", subject="s", data="x")
    assert (result.status, result.data["seq"]) == (ToolStatus.SUCCESS, 7)


async def test_subject_that_is_no_text_does_not_end_the_reading_of_a_worker() -> None:
    """The same by the subject of a message: the worker hears of no command any more."""
    got: asyncio.Queue[Any] = asyncio.Queue()

    def answer(to: bytes) -> Iterator[bytes]:
        sid = to.split()[1]
        return iter([b"MSG s.\xff " + sid + b" 1\r\nx\r\n", b"MSG s.y " + sid + b" 1\r\ny\r\n"])

    client = Client()
    async with hostile(answer) as server:
        await client.connect(server.url, allow_reconnect=False)
        await client.receive("s.>", got.put_nowait)
        await client.publish("s", b"", reply="r")
        subjects = [(await got.get()).subject for _ in range(2)]
        await client.close()
    assert subjects == ["s.\ufffd", "s.y"]


@pytest.mark.parametrize(
    "line", [b"-ERR '\xff'\r\n", b'INFO {"a":' + b"[" * 30_000 + b"\r\n"], ids=["error", "greeting"]
)
async def test_line_that_cannot_be_read_ends_the_connection(line: bytes) -> None:
    """A line of the server that ends the library's reading without a word."""
    is_closed = asyncio.Event()

    async def closed() -> None:
        is_closed.set()

    client = Client()
    async with hostile(lambda to: iter([line])) as server:
        server.goes_on.clear()  # the server itself closes nothing
        await client.connect(server.url, allow_reconnect=False, closed_cb=closed)
        await client.subscribe("s")
        await client.publish("s", b"", reply="r")
        await is_closed.wait()
        server.goes_on.set()


async def consumed(data: bytes, count: int) -> Any:
    """So many messages with this body, of one pull."""

    def answer(to: bytes) -> Iterator[bytes]:
        acks = (b" $JS.ACK.S.c.1.%d.%d.1700000000000000000.0 " % (number, number) for number in range(count))
        return iter([b"".join(b"MSG " + to + ack + b"%d\r\n" % len(data) + data + b"\r\n" for ack in acks)])

    return await run(answer, operation="js_consume", stream="S", consumer="c", batch=count, ack=False)


@pytest.mark.parametrize(("size", "off_loop"), [(10, 0), (2 << 20, 1)])
async def test_large_message_is_parsed_off_the_loop(size: int, off_loop: int) -> None:
    """A message whose size alone holds up the loop."""
    threads = Threads()
    result = await consumed(b'["' + b"a" * size + b'"]', 1)
    assert len(result.data["messages"][0]["data"][0]) == size
    assert bool(threads.given) == off_loop


async def test_many_messages_are_parsed_off_the_loop_together() -> None:
    """Many small messages of one pull, parsed in one step of the loop."""
    threads = Threads()
    result = await consumed(json.dumps(["a" * 10_000]).encode(), 100)
    assert result.data["count"] == 100
    assert 1 <= threads.given <= 2  # weighed, and parsed
