"""The connections below a client of tools: which are used again, and what a server can do to one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpcore
import httpx
import pytest

from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool
from noetl_worker.tools.http.client import Clients, send
from noetl_worker.tools.http.egress_backend import CheckedNetwork
from patience import until

from .http_server import Answer, ToolServer

Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(served: Served) -> AsyncIterator[str]:
    """The address of a server that does this with each connection, and leaves the closing to the client."""
    ended: list[asyncio.Future[None]] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.get_running_loop().create_future())
        here = ended[-1]
        with suppress(ConnectionError):
            await served(reader, writer)
            await reader.read()
        writer.close()
        here.set_result(None)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await asyncio.gather(*ended)
        await asyncio.sleep(0)  # the loop closes them in its next turn


async def asked(client: httpx.AsyncClient, address: str) -> bytes:
    response = await send(client, httpx.Request("GET", address), follow_redirects=True)
    return await response.aread()


@pytest.mark.parametrize("later", [b"", ANSWER.replace(b"ok", b"no")], ids=["closed", "speaks-out-of-turn"])
async def test_idle_connection_that_was_closed_or_spoke_is_not_used_again(later: bytes) -> None:
    arrived, seen = [], asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        if len(arrived) == 1:
            await seen.wait()
            writer.write(later)
            if not later:
                writer.close()

    clients = Clients()
    async with serving(served) as address, clients.lease(to=address) as client:
        first = await send(client, httpx.Request("GET", address), follow_redirects=True)
        stream = first.extensions["network_stream"]
        assert await first.aread() == b"ok"
        seen.set()
        await until(lambda: stream.get_extra_info("is_readable"), "what the server does arrives")
        assert await asked(client, address) == b"ok"
        await clients.aclose()
    assert len(arrived) == 2


async def test_connection_on_which_two_answers_came_at_once_is_not_used_again() -> None:
    """The second would be the answer to the next request, which may be another command's."""
    arrived = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER + ANSWER.replace(b"ok", b"no"))

    clients = Clients()
    async with serving(served) as address, clients.lease(to=address) as client:
        assert [await asked(client, address) for _ in range(3)] == [b"ok"] * 3
        await clients.aclose()
    assert len(arrived) == 3


@pytest.mark.parametrize("said", [ANSWER, b""], ids=["speaks", "closes"])
async def test_server_that_speaks_or_closes_before_tls_is_an_error_at_once(said: bytes) -> None:
    """What came without TLS would be taken for an answer under it; on a closed connection nobody ends a handshake."""

    async def served(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if not said:
            writer.close()

    async with serving(served) as address:
        url = httpx.URL(address)
        stream = await CheckedNetwork(is_own=True).connect_tcp(url.host, url.port or 0)
        await until(lambda: stream.get_extra_info("is_readable"), "what the server does arrives")
        with pytest.raises(httpcore.ConnectError, match=r"the server (spoke|closed) before TLS"):
            await stream.start_tls(ssl.create_default_context(), url.host)


async def test_client_keeps_the_connections_to_two_servers() -> None:
    clients = Clients()
    with ToolServer() as here, ToolServer() as there:
        for server in (here, there):
            server.routes["/"] = lambda _: Answer(200, b"x")
        async with clients.lease(to=here.url("/")) as client:
            for server in (here, there) * 3:
                assert await asked(client, server.url("/")) == b"x"
        await clients.aclose()
        for server in (here, there):
            assert len(server.requests) == 3
            assert len({seen.client_port for seen in server.requests}) == 1


async def test_client_keeps_no_more_than_twenty_idle_connections() -> None:
    closed = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await reader.read()
        closed.append(writer.get_extra_info("sockname")[1])

    clients = Clients()
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(serving(served)) for _ in range(22)]
        async with clients.lease(to=addresses[0]) as client:
            for address in addresses:
                await asked(client, address)
            await until(lambda: len(closed) == 2, "two are closed")
            assert closed == [httpx.URL(address).port for address in addresses[:2]]
        await clients.aclose()
        await until(lambda: len(closed) == 22, "all are closed")


async def test_two_requests_of_one_client_at_a_time_have_a_connection_each() -> None:
    clients = Clients()
    with ToolServer() as server:
        server.routes["/"] = lambda _: Answer(200, b"x")
        async with clients.lease(to=server.url("/")) as client:
            answers = await asyncio.gather(*(asked(client, server.url("/")) for _ in range(2)))
        await clients.aclose()
        assert answers == [b"x", b"x"]
        assert len({seen.client_port for seen in server.requests}) == 2


async def test_server_that_sends_more_than_is_read_has_to_wait() -> None:
    pieces, sent = 256, []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces << 16))
        for _ in range(pieces):
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent.append(1)

    clients = Clients()
    async with serving(served) as address, clients.lease(to=address) as client:
        response = await client.send(httpx.Request("GET", address), stream=True)
        for _ in range(4 * pieces):  # turns of the loop that the server has, too
            await asyncio.sleep(0)
        waited_at = len(sent)
        assert sum([len(piece) async for piece in response.aiter_raw()]) == pieces << 16
        await clients.aclose()
    assert waited_at < pieces // 2, "what nobody has read fills the buffers of the system, and no memory of ours"


async def test_answer_before_the_end_of_a_request_ends_the_request() -> None:
    left = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        writer.write_eof()
        await left.wait()

    async with serving(served) as address:
        result = await arun_tool("http", {"url": address, "method": "POST", "body": "x" * (8 << 20)})
        left.set()
    assert (result.status, result.data["status_code"], result.data["data"]) == (ToolStatus.ERROR, 413, "no")


async def test_flood_of_interim_answers_ends_with_the_deadline() -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)
            await writer.drain()

    async with serving(served) as address:
        result = await arun_tool("http", {"url": address, "timeout": 0.5})
    assert result.status is ToolStatus.TIMEOUT


async def test_server_that_is_silent_in_the_handshake_is_a_connect_timeout() -> None:
    left = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()

    async with serving(served) as address:
        result = await arun_tool("http", {"url": address.replace("http:", "https:"), "connect_timeout": 0.05})
        left.set()
    assert result.status is ToolStatus.TIMEOUT
    assert result.error is not None
    assert "(connect_timeout)" in result.error.message
