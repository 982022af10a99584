"""The transport of the tools' httpx clients: a few connections of its own instead of httpcore's pool.

A client is one command's (client.py), so there is nothing to share out. To look for a free connection in a pool took a
third of a request's CPU, and locks, traces and copies of httpcore's connections a fifth of the rest.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Final

import httpcore
import httpx

from noetl_worker.tools.http.connection import HttpConnection, raise_as_httpx

_MOST_IDLE: Final = 20


class ClientTransport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport; it opens a new connection if none to the server is idle."""

    def __init__(self, verify: ssl.SSLContext, network: httpcore.AsyncNetworkBackend) -> None:
        verify.set_alpn_protocols(["http/1.1"])
        self._verify = verify
        self._network = network
        self._idle: dict[bytes, HttpConnection] = {}
        """Idle connections by server, the least recently used first."""
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol '{url.scheme}://'.")
        server = url.raw_scheme + b"://" + url.netloc
        connection = await self._take(server) or await self._connect(request)
        head = await connection.ask(request)
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, server, connection),
            extensions={
                "http_version": b"HTTP/" + head.http_version,
                "reason_phrase": head.reason,
                "network_stream": connection.stream,
            },
        )

    async def _take(self, server: bytes) -> HttpConnection | None:
        connection = self._idle.pop(server, None)
        if connection is None or connection.is_usable():
            return connection
        await connection.aclose()
        return None

    async def _connect(self, request: httpx.Request) -> HttpConnection:
        url, timeout_s = request.url, request.extensions.get("timeout", {}).get("connect")
        host, is_tls = url.raw_host.decode("ascii"), url.scheme == "https"
        try:
            stream = await self._network.connect_tcp(host, url.port or (443 if is_tls else 80), timeout_s)
            if is_tls:
                stream = await stream.start_tls(self._verify, host, timeout_s)
        except Exception as error:
            raise_as_httpx(error)
        return HttpConnection(stream)

    async def give_back(self, server: bytes, connection: HttpConnection) -> None:
        """Take a connection back after an answer that was read to its end, or abandoned."""
        if self._is_closed or not connection.reset():
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
    """An answer's body. Its end, or an earlier close, gives the connection back."""

    def __init__(self, owner: ClientTransport, server: bytes, connection: HttpConnection) -> None:
        self._owner, self._server = owner, server
        self._connection: HttpConnection | None = connection

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
            await self._owner.give_back(self._server, connection)
