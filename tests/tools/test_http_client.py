"""The shared clients of kind `http` and of all that speak HTTP: when they are closed."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from httpcore._async.http11 import AsyncHTTP11Connection

from noetl_worker.tools.http.client import ClientOptions, Clients

from .http_server import Answer, ToolServer


class SlowToClose(httpx.MockTransport):
    """Stays in its closing until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.closing, self.go_on = asyncio.Event(), asyncio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await self.go_on.wait()


async def test_closing_all_connections_does_not_fail_the_command_that_has_one() -> None:
    clients = Clients()
    async with clients.lease():
        await clients.aclose()


async def test_a_client_that_is_taken_while_the_surplus_is_closed_stays_open() -> None:
    unused, ours, others = (ClientOptions(proxy=f"http://127.0.0.1:{port}") for port in (1, 2, 3))
    transport = SlowToClose()
    clients = Clients(transport, max_idle=1)
    async with clients.lease(unused):
        pass

    async def command() -> None:
        async with clients.lease(ours):
            pass

    async with clients.lease(others):
        ending = asyncio.ensure_future(command())
        await transport.closing.wait()
        async with clients.lease(ours) as client:
            transport.go_on.set()
            await ending
            assert not client.is_closed


async def test_connections_that_cancelled_requests_leave_behind_do_not_use_up_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """httpcore keeps one that was made and never spoken on: it is neither idle nor used, for ever."""

    async def scenario(url: str) -> None:
        clients = Clients(limits=httpx.Limits(max_connections=2), max_cancelled=2)

        async def command() -> int:
            async with clients.lease() as client:
                return (await client.get(url)).status_code

        for _ in range(2):
            made = asyncio.Event()

            async def silent(*_: object, made: asyncio.Event = made) -> None:
                made.set()
                await asyncio.Event().wait()

            with monkeypatch.context() as patch:
                patch.setattr(AsyncHTTP11Connection, "handle_async_request", silent)
                call = asyncio.ensure_future(command())
                await made.wait()
                call.cancel()
                await asyncio.wait({call})
        assert await asyncio.wait_for(command(), 5) == 200
        await clients.aclose()

    with ToolServer() as server:
        server.routes["/"] = lambda _: Answer(200, b"")
        await scenario(server.url("/"))


async def test_a_client_that_is_given_up_is_closed_by_the_last_command_that_has_it() -> None:
    clients = Clients(max_cancelled=1)
    async with clients.lease() as first:
        with pytest.raises(asyncio.CancelledError):
            async with clients.lease() as same:
                raise asyncio.CancelledError
        assert same is first
        assert not first.is_closed
        async with clients.lease() as second:
            assert second is not first
    assert first.is_closed
    assert not second.is_closed
    await clients.aclose()
    assert second.is_closed
