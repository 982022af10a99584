"""What a command of kind `http` costs beside its client in a bare loop, and where: http.json, for docs/performance.md.

The bare loop has what the kind needs of a client: a connection kept for each of the 16 at work, addresses checked, a
deadline for the whole, redirects followed by us, the body within a limit. Sides take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import httpx
import uvloop

import performance_page
from bench_worker import where_and_when
from counts import count_parts
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.client import HEADERS, Clients, send
from noetl_worker.tools.kinds.http.http_fields import MAX_RESPONSE_BYTES
from noetl_worker.tools.registry import Registry
from rig import rig
from stub_plane import Answers

SLOTS: Final = 16
REQUESTS: Final = 2000
ROUNDS: Final = 7
DELAY_MS: Final = 1.0
_DEADLINE_S: Final = 60.0
Request = Callable[[], Awaitable[None]]


async def _sides(url: str, stack: AsyncExitStack) -> dict[str, Request]:
    registry = Registry(plugins=False)
    stack.push_async_callback(registry.aclose)
    context = tool_context(registry=registry)

    async def kind() -> None:
        result = await registry.run_tool("http", {"url": url}, context)
        assert result.exit_code == 0, result

    clients = Clients()
    stack.push_async_callback(clients.aclose)

    async def bare() -> None:
        with anyio.fail_after(_DEADLINE_S):
            async with clients.lease(to=url, settings=ToolSettings()) as client:
                request = httpx.Request("GET", url, headers=HEADERS)
                response = await send(client, request, follow_redirects=True)
                (await read(response, MAX_RESPONSE_BYTES)).take()

    of_httpx = [await stack.enter_async_context(httpx.AsyncClient()) for _ in range(SLOTS)]

    async def one_each() -> None:
        client = of_httpx.pop()
        await client.get(url)
        of_httpx.append(client)

    shared = await stack.enter_async_context(httpx.AsyncClient())

    async def one_for_all() -> None:
        await shared.get(url)

    return {"kind": kind, "bare": bare, "httpx_one_each": one_each, "httpx_one_for_all": one_for_all}


async def _cpu_us(request: Request, requests: int) -> float:
    """CPU of this process for each of them, 16 at a time."""
    left = iter(range(requests))

    async def one_slot() -> None:
        for _ in left:
            await request()

    before = time.process_time()
    await asyncio.gather(*(one_slot() for _ in range(SLOTS)))
    return (time.process_time() - before) / requests * 1e6


async def beside_its_client(url: str, requests: int, rounds: int, *names: str) -> dict[str, float]:
    """The least CPU of each side, µs a request."""
    async with AsyncExitStack() as stack:
        sides = await _sides(url, stack)
        found: dict[str, float] = {}
        for _ in range(rounds + 1):  # the first one opens connections
            for name in names or sides:
                cpu_us = await _cpu_us(sides[name], requests)
                found[name] = min(found.get(name, cpu_us), cpu_us)
        return found


async def measured() -> dict[str, Any]:
    async with rig() as here:
        url = f"{here.stub_url}/api/health"
        loops = await beside_its_client(url, REQUESTS, ROUNDS)
        commands: dict[str, Mapping[str, Any]] = {"noop": {}, "http": {"url": url}}
        parts = {}
        for kind, config in commands.items():
            answers = Answers(DELAY_MS, kind, dict(config))
            asked = {"calls": REQUESTS, "cpu": 10 * REQUESTS}
            parts[kind] = {what: await count_parts(here, what, SLOTS, asked[what], answers) for what in asked}
    return {"slots": SLOTS, "delay_ms": DELAY_MS, "loops_us": loops, "parts": parts}


def main() -> None:
    found = {**where_and_when(), **uvloop.run(measured())}
    performance_page.keep("http", found)


if __name__ == "__main__":
    main()
