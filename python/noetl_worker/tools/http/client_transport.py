"""The transport of the tools' httpx clients. It manages its connections itself, without httpcore's pool.

Only one command uses a client at a time (client.py), so no pool must distribute connections. httpcore's search for a
free connection took a third of a request's CPU. Its locks, traces and copies took a fifth of the rest.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Final

import httpx

from noetl_worker.settings.networks import EgressRule
from noetl_worker.tools.http.connection import StreamedConnection
from noetl_worker.tools.http.egress_backend import connected

_MOST_IDLE: Final = 20
_DAY_S: Final = 86_400.0
"""Limit of a TLS handshake: one day in seconds. Only the deadline of the exchange should count, but asyncio's default
limit is one minute."""


class ClientTransport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport; it opens a new connection if none to the server is idle.

    Args:
        verify: context for TLS.
        rule: the addresses that are denied; None for an address from the worker's own settings.
    """

    def __init__(self, verify: ssl.SSLContext, rule: EgressRule | None) -> None:
        verify.set_alpn_protocols(["http/1.1"])
        self._verify = verify
        self._rule = rule
        self._idle: dict[bytes, StreamedConnection] = {}
        """Idle connections by server, the least recently used first."""
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol '{url.scheme}://'.")
        server = url.raw_scheme + b"://" + url.netloc
        connection = self._idle.pop(server, None)
        if connection is not None and not connection.is_usable(asyncio.get_running_loop().time()):
            await connection.aclose()
            connection = None
        connection = connection or await self._connect(request)
        return await connection.ask(request, _Body(self, server, connection))

    async def _connect(self, request: httpx.Request) -> StreamedConnection:
        url, timeout_s = request.url, request.extensions.get("timeout", {}).get("connect")
        host, is_tls = url.raw_host.decode("ascii"), url.scheme == "https"
        port = url.port or (443 if is_tls else 80)
        tls, name, handshake_s = (self._verify, host, _DAY_S) if is_tls else (None, None, None)

        async def connect(address: str) -> StreamedConnection:
            _, connection = await asyncio.get_running_loop().create_connection(
                StreamedConnection, address, port, ssl=tls, server_hostname=name, ssl_handshake_timeout=handshake_s
            )
            return connection

        return await connected(connect, host, port, timeout_s, self._rule)

    async def keep_open(self, server: bytes, connection: StreamedConnection) -> None:
        """Take a connection back after its answer has been read or closed. A reusable connection becomes idle; any
        other is closed."""
        if self._is_closed or not connection.is_usable(asyncio.get_running_loop().time()):
            await connection.aclose()
            return
        surplus = self._idle.pop(server, None)
        self._idle[server] = connection
        if surplus is None and len(self._idle) > _MOST_IDLE:
            surplus = self._idle.pop(next(iter(self._idle)))
        if surplus is not None:
            await surplus.aclose()

    async def aclose(self) -> None:
        """Close idle connections now. A connection in use closes with its answer."""
        self._is_closed = True
        idle, self._idle = self._idle, {}
        for connection in idle.values():
            await connection.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer. When the body ends or is closed, it gives its connection back to the transport."""

    def __init__(self, owner: ClientTransport, server: bytes, connection: StreamedConnection) -> None:
        self._owner, self._server = owner, server
        self._connection: StreamedConnection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = None if self._connection is None else await self._connection.next_piece()
        if piece is None:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._owner.keep_open(self._server, connection)
