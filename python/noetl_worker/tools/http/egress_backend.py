"""Connections of an HTTP client, only to checked addresses (egress.py).

A name is resolved once, here, and the connection is made to an address that was checked; a second lookup could give
another one. What is sent over it (TLS name, Host) is the name's. A connection of the pool was checked when it was made,
and a redirect's is checked like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

import anyio
import httpcore
import httpx

from noetl_worker.process import lookups
from noetl_worker.process.lookups import Lookups
from noetl_worker.tools.http.egress import EgressDenied, check
from noetl_worker.tools.http.stream import TcpStream
from noetl_worker.tools.process.shortage import is_shortage

_STAGGER_S: Final = 0.25
"""Time until a name's next address is tried in parallel (RFC 8305)."""


def guard(client: httpx.AsyncClient, *, proxies: bool) -> None:
    """Check every address that this client connects to over transports of httpx.

    Args:
        proxies: whether its proxies are checked, too; False where they are the worker's own.

    Raises:
        RuntimeError: it cannot be guarded (an httpx of other insides); better no connection than one unguarded.
    """
    for transport in (client._transport, *(client._mounts.values() if proxies else ())):
        if not isinstance(transport, httpx.AsyncHTTPTransport):  # a test's own, or the lack of a proxy
            continue
        pool = getattr(transport, "_pool", None)
        if pool is None or not isinstance(getattr(pool, "_network_backend", None), httpcore.AsyncNetworkBackend):
            raise RuntimeError(f"httpx {httpx.__version__} has no place to check addresses at: install another version")
        pool._network_backend = CheckedNetwork()


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """An asyncio network backend that connects only to checked addresses."""

    def __init__(self, *, is_own: bool = False) -> None:
        self._is_own = is_own
        """Every address is allowed."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if local_address is not None or socket_options is not None:
            raise ValueError("a tool's connection has neither a local address nor options of its socket")

        try:
            with anyio.fail_after(timeout):
                addresses = await (_resolved(lookups.OWN, host, port) if self._is_own else _allowed(host, port))
                return await _first(partial(_connected, port), addresses)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection to {host} after {timeout:g} seconds") from error


async def _connected(port: int, address: str) -> TcpStream:
    try:
        return (await asyncio.get_running_loop().create_connection(TcpStream, address, port))[1]
    except OSError as error:  # the text of the published worker first: playbooks look for it (values/, http-refused)
        raise httpcore.ConnectError(f"All connection attempts failed: {error.strerror or error}") from error


async def _allowed(host: str, port: int) -> list[str]:
    """Return the allowed addresses of `host`, the preferred first. Raises EgressDenied if there are none."""
    try:
        check(host, host, port)
        return [host]
    except ValueError:
        addresses = await _resolved(lookups.TOOLS, host, port)
    denied: EgressDenied | None = None
    allowed: list[str] = []
    for address in addresses:
        try:
            check(host, address, port)
            allowed.append(address)
        except EgressDenied as error:
            denied = denied or error
    if not allowed and denied is not None:
        raise denied
    return allowed


async def _resolved(by: Lookups, host: str, port: int) -> list[str]:
    try:
        return await by.addresses(host, port)
    except (OSError, UnicodeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_shortage(error):
            raise
        raise httpcore.ConnectError(str(error)) from error


async def _first(connected: Callable[[str], Coroutine[Any, Any, TcpStream]], addresses: list[str]) -> TcpStream:
    """Return the first connection made; each address is tried a moment after the previous one."""
    if len(addresses) == 1:
        return await connected(addresses[0])
    waiting, tasks, failure = list(addresses), set[asyncio.Task[TcpStream]](), None
    try:
        while waiting or tasks:
            if waiting:
                tasks.add(asyncio.ensure_future(connected(waiting.pop(0))))
            pause_s = _STAGGER_S if waiting else None
            done, tasks = await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    tasks |= done - {task}
                    return task.result()
                failure = failure or task.exception()
    finally:
        for task in tasks:
            task.cancel()
        for late in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(late, BaseException):
                await late.aclose()
    raise failure or httpcore.ConnectError("no address")
