"""Connections of an HTTP client, only to checked addresses (egress.py).

A host name is resolved once, and the connection goes to an address that was checked. A second look-up could return
another address. TLS and the Host header still use the name. A reused connection was checked when it was opened. The
connection of a redirect is checked like any other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import anyio
import httpcore
import httpx

from noetl_worker.process import lookups
from noetl_worker.process.lookups import Lookups
from noetl_worker.settings.networks import EgressRule
from noetl_worker.tools.http.connection import StreamedConnection
from noetl_worker.tools.http.egress import EgressDenied, check
from noetl_worker.tools.process.shortage import is_shortage

T = TypeVar("T", httpcore.AsyncNetworkStream, StreamedConnection)
_STAGGER_S: Final = 0.25
"""Seconds until the next address of a host name is tried in parallel (RFC 8305)."""


def guard(client: httpx.AsyncClient, rule: EgressRule, *, proxies: bool) -> None:
    """Make the httpx `client` connect only to addresses that the operator's egress rule allows.

    Args:
        proxies: True if the address of the proxy is checked too: a playbook gave this proxy. False for proxies from the
            worker's environment.

    Raises:
        RuntimeError: addresses cannot be checked with the installed version of httpx. No unchecked connection is made.
    """
    for transport in (client._transport, *(client._mounts.values() if proxies else ())):
        if not isinstance(transport, httpx.AsyncHTTPTransport):  # a test's transport, or None for no proxy
            continue
        pool = getattr(transport, "_pool", None)
        if pool is None or not isinstance(getattr(pool, "_network_backend", None), httpcore.AsyncNetworkBackend):
            raise RuntimeError(f"addresses cannot be checked with httpx {httpx.__version__}: install another version")
        pool._network_backend = CheckedNetwork(rule)


class CheckedNetwork(httpcore.AnyIOBackend):
    """Network backend of httpcore that connects only to checked addresses, used only if a proxy is configured."""

    def __init__(self, rule: EgressRule) -> None:
        self._rule = rule

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        tcp = super().connect_tcp
        connect = partial(tcp, port=port, local_address=local_address, socket_options=socket_options)
        return await connected(connect, host, port, timeout, self._rule)


async def connected(
    connect: Callable[[str], Awaitable[T]], host: str, port: int, timeout_s: float | None, rule: EgressRule | None
) -> T:
    """Return the first connection made to an allowed address of `host`. Without a rule every address is allowed.

    Raises:
        EgressDenied: no address is allowed.
        httpx.ConnectError: no connection could be made.
        httpx.ConnectTimeout: no connection was made within `timeout_s` seconds.
    """
    try:
        with anyio.fail_after(timeout_s):
            addresses = await (_resolved(lookups.OWN, host, port) if rule is None else _allowed(rule, host, port))
            return await _first(partial(_attempt, connect), addresses)
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"no connection to {host} after {timeout_s:g} seconds") from error


async def _attempt(connect: Callable[[str], Awaitable[T]], address: str) -> T:
    try:
        return await connect(address)
    except OSError as error:
        text = error.strerror or str(error) or type(error).__name__
        if not isinstance(
            error, ssl.SSLError
        ):  # the text of the published worker: playbooks look for it (http-refused)
            text = f"All connection attempts failed: {text}"
        raise httpx.ConnectError(text) from error


async def _allowed(rule: EgressRule, host: str, port: int) -> list[str]:
    """Return the allowed addresses of `host`, in the order in which to try them. Raises EgressDenied if no address is
    allowed."""
    try:
        check(rule, host, host, port)
        return [host]
    except ValueError:
        addresses = await _resolved(lookups.TOOLS, host, port)
    denied: EgressDenied | None = None
    allowed: list[str] = []
    for address in addresses:
        try:
            check(rule, host, address, port)
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
        raise httpx.ConnectError(str(error)) from error


async def _first(connect: Callable[[str], Awaitable[T]], addresses: list[str]) -> T:
    """Return the first connection that succeeds. Attempts run in parallel, each started 0.25 s after the previous one
    (RFC 8305)."""
    if len(addresses) == 1:
        return await connect(addresses[0])
    waiting, tasks, failure = list(addresses), set[asyncio.Future[T]](), None
    try:
        while waiting or tasks:
            if waiting:
                tasks.add(asyncio.ensure_future(connect(waiting.pop(0))))
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
    raise failure or httpx.ConnectError("no address")
