"""The shared clients of kind `http` and of all that speak HTTP: when they are closed."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from noetl_worker.tools.http_client import ClientOptions, Clients


class SlowToClose(httpx.MockTransport):
    """Stays in its closing until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.closing, self.go_on = asyncio.Event(), asyncio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await self.go_on.wait()


def test_closing_all_connections_does_not_fail_the_command_that_has_one() -> None:
    async def scenario() -> None:
        clients = Clients()
        async with clients.lease():
            await clients.aclose()

    asyncio.run(scenario())


def test_a_client_that_is_taken_while_the_surplus_is_closed_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noetl_worker.tools.http_client._MAX_IDLE_CLIENTS", 1)
    unused, ours, others = (ClientOptions(proxy=f"http://127.0.0.1:{port}") for port in (1, 2, 3))

    async def scenario() -> None:
        transport = SlowToClose()
        clients = Clients(transport)
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

    asyncio.run(scenario())
