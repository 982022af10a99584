"""The connections below a client of tools: which are used again, and what a server can do to one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.http.client import Clients, send
from noetl_worker.tools.http.client_transport import ClientTransport
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


@asynccontextmanager
async def client_of(served: Served) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client that a command has, and the address of such a server."""
    clients = Clients()
    async with serving(served) as address, clients.lease(to=address, settings=ToolSettings()) as client:
        yield client, address
        await clients.aclose()


def transport_of_tools() -> ClientTransport:
    return ClientTransport(ssl.create_default_context(), None)


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)


async def get(client: httpx.AsyncClient, address: str) -> httpx.Response:
    return await send(client, httpx.Request("GET", address), follow_redirects=True)


async def asked(client: httpx.AsyncClient, address: str) -> bytes:
    return await (await get(client, address)).aread()


@pytest.mark.parametrize("later", [b"", ANSWER.replace(b"ok", b"no")], ids=["closed", "speaks-out-of-turn"])
async def test_idle_connection_that_was_closed_or_spoke_is_not_used_again(later: bytes) -> None:
    arrived, seen, ended = [], asyncio.Event(), asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        if len(arrived) == 1:
            await seen.wait()
            writer.write(later)
            if not later:
                writer.write_eof()
            with suppress(ConnectionError):
                await reader.read()
            ended.set()

    async with client_of(served) as (client, address):
        assert await asked(client, address) == b"ok"
        seen.set()
        await ended.wait()
        assert await asked(client, address) == b"ok"
    assert len(arrived) == 2


async def test_connection_on_which_two_answers_came_at_once_is_not_used_again() -> None:
    """The second would be the answer to the next request, which may be another command's."""
    arrived = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER + ANSWER.replace(b"ok", b"no"))

    async with client_of(served) as (client, address):
        assert [await asked(client, address) for _ in range(3)] == [b"ok"] * 3
    assert len(arrived) == 3


@pytest.mark.parametrize("said", [ANSWER, b""], ids=["speaks", "closes"])
async def test_server_that_speaks_or_closes_before_tls_is_an_error_at_once(said: bytes) -> None:
    """What came without TLS would be taken for an answer under it; on a closed connection nobody ends a handshake."""

    async def served(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if not said:
            writer.close()

    async with serving(served) as address, httpx.AsyncClient(transport=transport_of_tools()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(address.replace("http:", "https:"))


async def test_client_keeps_the_connections_to_two_servers(clients: Clients) -> None:
    with ToolServer() as here, ToolServer() as there:
        for server in (here, there):
            server.routes["/"] = lambda _: Answer(200, b"x")
        async with clients.lease(to=here.url("/"), settings=ToolSettings()) as client:
            for server in (here, there) * 3:
                assert await asked(client, server.url("/")) == b"x"
        for server in (here, there):
            assert len(server.requests) == 3
            assert len({seen.client_port for seen in server.requests}) == 1


async def test_client_keeps_no_more_than_twenty_idle_connections() -> None:
    closed = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered(reader, writer)
        await reader.read()
        closed.append(writer.get_extra_info("sockname")[1])

    clients = Clients()
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(serving(served)) for _ in range(22)]
        async with clients.lease(to=addresses[0], settings=ToolSettings()) as client:
            for address in addresses:
                await asked(client, address)
            await until(lambda: len(closed) == 2, "two are closed")
            assert closed == [httpx.URL(address).port for address in addresses[:2]]
        await clients.aclose()
        await until(lambda: len(closed) == 22, "all are closed")


async def test_two_requests_of_one_client_at_a_time_have_a_connection_each(
    clients: Clients, server: ToolServer
) -> None:
    server.routes["/"] = lambda _: Answer(200, b"x")
    async with clients.lease(to=server.url("/"), settings=ToolSettings()) as client:
        answers = await asyncio.gather(*(asked(client, server.url("/")) for _ in range(2)))
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

    async with client_of(served) as (client, address):
        response = await client.send(httpx.Request("GET", address), stream=True)
        for _ in range(4 * pieces):  # turns of the loop that the server has, too
            await asyncio.sleep(0)
        waited_at = len(sent)
        assert sum([len(piece) async for piece in response.aiter_raw()]) == pieces << 16
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


async def test_flood_of_interim_answers_is_left() -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)
            await writer.drain()

    async with serving(served) as address:
        with pytest.raises(ToolError, match="the answer has more than 131072 bytes beside its content"):
            await arun_tool("http", {"url": address})


async def test_server_that_is_silent_in_the_handshake_is_a_connect_timeout() -> None:
    left = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()

    async with serving(served) as address:
        result = await arun_tool("http", {"url": address.replace("http:", "https:"), "connect_timeout": 0.05})
        left.set()
    assert result.status is ToolStatus.TIMEOUT
    assert "(connect_timeout)" in str(result.error)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "length": ANSWER,
    "chunks-and-a-trailer": CHUNKED + b"2\r\nok\r\n1;x=y\r\n!\r\n0\r\nLater: 1\r\n\r\n",
    "until-the-end": b"HTTP/1.1 200 OK\r\n\r\nok",
    "last-of-its-connection": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "of-http-1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no-body": b"HTTP/1.1 204 No Content\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
    "after-an-interim-one": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ANSWER,
    "error-without-a-reason": b"HTTP/1.1 503\r\nContent-Length: 2\r\n\r\nno",
    "nothing": b"",
    "half-a-head": b"HTTP/1.1 200 OK\r\nContent-",
    "half-a-body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "half-a-chunk": CHUNKED + b"9\r\nok",
    "another-protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "no-http": b"220 mail.example ESMTP\r\n\r\n",
    "endless-head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
}
KEPT_OPEN = ("length", "chunks-and-a-trailer", "no-body", "after-an-interim-one", "error-without-a-reason")


@pytest.mark.parametrize("name", ANSWERS)
async def test_answer_is_read_as_httpx_reads_it(name: str) -> None:
    connections = 0

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWERS[name])
                if name not in KEPT_OPEN:
                    writer.write_eof()
                    return

    async def seen(client: httpx.AsyncClient, address: str) -> list[object]:
        found: list[object] = []
        for _ in range(2):
            try:
                response = await client.send(httpx.Request("GET", address), stream=True)
                body = await response.aread()
                found.append((response.status_code, response.reason_phrase, response.headers.multi_items(), body))
                found.append(response.http_version)
            except httpx.TransportError as error:
                found.append((type(error), str(error)))
        return found

    async with serving(served) as address:
        async with Clients().lease(to=address, settings=ToolSettings()) as ours:
            one = await seen(ours, address)
            await ours.aclose()
        of_ours, connections = connections, 0
        async with httpx.AsyncClient() as plain:
            assert one == await seen(plain, address)
        assert of_ours == connections


async def test_head_of_a_request_leaves_before_its_body_is_there() -> None:
    """Meanwhile the server could close a connection that was idle, or answer a request that it has not got."""
    arrived = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        writer.write(ANSWER.replace(b"ok", await reader.readexactly(2)))

    async def body() -> AsyncIterator[bytes]:
        await arrived.wait()
        yield b"hi"

    async with client_of(served) as (client, address):
        request = httpx.Request("POST", address, content=body(), headers={"Content-Length": "2"})
        response = await send(client, request, follow_redirects=True)
        assert await response.aread() == b"hi"


async def test_connection_that_is_made_while_all_are_closed_is_not_kept() -> None:
    ended = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered(reader, writer)
        with suppress(ConnectionError):
            await reader.read()
        ended.set()

    async with serving(served) as address:
        transport = transport_of_tools()
        asking = asyncio.ensure_future(transport.handle_async_request(httpx.Request("GET", address)))
        await asyncio.sleep(0)  # it connects
        await transport.aclose()
        assert await (await asking).aread() == b"ok"
        await ended.wait()


async def test_answer_that_was_read_or_closed_takes_nothing_of_the_next_one() -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                await answered(reader, writer)

    async with client_of(served) as (client, address):
        first = await get(client, address)
        body = first.stream
        assert isinstance(body, httpx.AsyncByteStream)
        assert await first.aread() == b"ok"
        second = await get(client, address)
        assert [piece async for piece in body] == []
        await body.aclose()
        assert await second.aread() == b"ok"


@pytest.mark.parametrize(("method", "headers"), [("GÉT", {}), ("GET", {"a b": "1"})], ids=["method", "header"])
async def test_request_that_is_no_http_is_an_error_of_httpx(
    clients: Clients, server: ToolServer, method: str, headers: dict[str, str]
) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        async with clients.lease(to=server.url("/"), settings=ToolSettings()) as client:
            await send(client, httpx.Request(method, server.url("/"), headers=headers), follow_redirects=True)
    assert server.requests == []
