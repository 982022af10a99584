"""The clients of kind `http` and of all that speak HTTP: who has one, and when they are closed."""

from __future__ import annotations

import asyncio
import sys
from importlib.abc import MetaPathFinder

import httpx
import pytest

import virtual_time
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.http.client import MAX_IDLE_S, ClientOptions, Clients

from .http_server import Answer, ToolServer


class SlowToClose(httpx.MockTransport):
    """Stays in its closing until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.closing, self.go_on = asyncio.Event(), asyncio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await self.go_on.wait()


A = "http://a.example/x"
SETTINGS = ToolSettings()


async def test_command_has_a_client_for_itself_and_the_next_one_takes_it_over(clients: Clients) -> None:
    async with (
        clients.lease(to=A, settings=SETTINGS) as first,
        clients.lease(to=A, settings=SETTINGS) as second,
    ):
        assert second is not first
    async with clients.lease(to="http://a.example/other?x=1", settings=SETTINGS) as third:
        assert third is first  # the one that was returned last
    await clients.aclose()
    assert first.is_closed
    assert second.is_closed


@pytest.mark.parametrize(
    ("options", "to"),
    [
        (ClientOptions(verify=False), A),
        (ClientOptions(), "https://a.example/x"),
        (ClientOptions(), "http://b.example/"),
    ],
)
async def test_client_is_taken_over_for_the_same_options_and_server_alone(
    clients: Clients, options: ClientOptions, to: str
) -> None:
    async with clients.lease(to=A, settings=SETTINGS) as first:
        pass
    async with clients.lease(options, to=to, settings=SETTINGS) as other:
        assert other is not first


class Lookups(MetaPathFinder):
    """Modules that were looked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


async def test_request_looks_for_no_module(
    clients: Clients, server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is not installed Python remembers nothing: the disk is searched at each request, many times."""
    looked = Lookups()
    server.routes["/"] = lambda _: Answer(200, b"")
    for _ in range(2):
        looked.names.clear()
        monkeypatch.setattr(sys, "meta_path", [looked, *sys.meta_path])
        async with clients.lease(to=server.url("/"), settings=SETTINGS) as client:
            await client.get(server.url("/"))
    assert looked.names == []


async def test_closing_all_connections_does_not_fail_the_command_that_has_one(clients: Clients) -> None:
    async with clients.lease(to=A, settings=SETTINGS) as client:
        await clients.aclose()
        assert not client.is_closed
    assert client.is_closed


async def test_client_that_is_returned_while_the_surplus_is_closed_stays_open() -> None:
    transport = SlowToClose()
    clients = Clients(transport, max_idle=1)
    async with clients.lease(to="http://unused.example", settings=SETTINGS):
        pass

    async def command() -> None:
        async with clients.lease(to=A, settings=SETTINGS):
            pass

    ending = asyncio.ensure_future(command())
    await transport.closing.wait()
    async with clients.lease(to=A, settings=SETTINGS) as client:
        transport.go_on.set()
        await ending
        assert not client.is_closed


@virtual_time.PASSES
async def test_client_that_nobody_takes_is_closed(clients: Clients) -> None:
    async with clients.lease(to=A, settings=SETTINGS) as first:
        pass
    await asyncio.sleep(MAX_IDLE_S - 1)
    async with clients.lease(to="http://b.example", settings=SETTINGS):
        pass
    assert not first.is_closed
    await asyncio.sleep(2)
    async with clients.lease(to="http://b.example", settings=SETTINGS) as second:
        pass
    assert first.is_closed
    assert not second.is_closed


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, RuntimeError])
async def test_client_of_a_command_that_was_cut_off_is_closed(clients: Clients, error: type[BaseException]) -> None:
    """httpcore keeps a connection that was made and never spoken on: it is neither idle nor used, for ever."""
    with pytest.raises(error):
        async with clients.lease(to=A, settings=SETTINGS) as first:
            raise error
    assert first.is_closed
    async with clients.lease(to=A, settings=SETTINGS) as second:
        assert second is not first


async def test_address_that_is_none_gets_a_client_which_refuses_it(clients: Clients) -> None:
    with pytest.raises(httpx.InvalidURL):
        async with clients.lease(to="http://[::1", settings=SETTINGS) as client:
            await client.get("http://[::1")
