"""The shared clients of kind `http` and of all that speak HTTP: when they are closed."""

from __future__ import annotations

import asyncio

from noetl_worker.tools.http_client import Clients


def test_closing_all_connections_does_not_fail_the_command_that_has_one() -> None:
    async def scenario() -> None:
        clients = Clients()
        async with clients.lease():
            await clients.aclose()

    asyncio.run(scenario())
