"""What an httpx client of tools sends over: httpcore's connections without its pool and httpx's transport.

A client is one command's (client.py), so there is nothing to share out; the pool's looking for a free connection took
a third of a request's CPU.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, cast

import httpcore
import httpx

KEPT_S: Final = 5.0
"""An idle connection is closed after so long, or not used again."""
_MOST_IDLE: Final = 20
_SCHEMES: Final = (b"http", b"https")


class ClientTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1, a new connection for each request that finds none idle to its server."""

    def __init__(self, verify: ssl.SSLContext, network: httpcore.AsyncNetworkBackend) -> None:
        self._verify = verify
        self._network = network
        self._idle: dict[bytes, httpcore.AsyncHTTPConnection] = {}
        """By server; the one that was used longest ago first."""
        self._used: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        scheme = url.raw_scheme
        if scheme not in _SCHEMES:
            raise httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol '{scheme.decode()}://'.")
        address = httpcore.URL(scheme=scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        server = scheme + b"://" + url.netloc
        connection = await self._take(server, address)
        try:
            answer = await connection.handle_async_request(
                httpcore.Request(
                    request.method.encode(),
                    address,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException as error:
            self._used.discard(connection)
            await connection.aclose()
            if (mapped := _of_httpx(error)) is not None:
                raise mapped from error
            raise
        body = _Body(self, server, connection, answer)
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

    async def _take(self, server: bytes, address: httpcore.URL) -> httpcore.AsyncHTTPConnection:
        connection = self._idle.pop(server, None)
        if connection is not None and connection.has_expired():
            await connection.aclose()
            connection = None
        if connection is None:
            connection = httpcore.AsyncHTTPConnection(
                address.origin, self._verify, keepalive_expiry=KEPT_S, network_backend=self._network
            )
        self._used.add(connection)
        return connection

    async def give_back(self, server: bytes, connection: httpcore.AsyncHTTPConnection) -> None:
        """After an answer that was read, or left."""
        if connection not in self._used:  # all were closed meanwhile
            await connection.aclose()
            return
        self._used.remove(connection)
        if not connection.is_idle():
            return
        if _has_more(connection):
            await connection.aclose()
            return
        surplus = self._idle.pop(server, None)
        self._idle[server] = connection
        if surplus is None and len(self._idle) > _MOST_IDLE:
            surplus = self._idle.pop(next(iter(self._idle)))
        if surplus is not None:
            await surplus.aclose()

    async def aclose(self) -> None:
        connections = [*self._idle.values(), *self._used]
        self._idle.clear()
        self._used.clear()
        for connection in connections:
            await connection.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, owner: ClientTransport, server: bytes, connection: httpcore.AsyncHTTPConnection, answer: httpcore.Response
    ) -> None:
        self._owner, self._server, self._connection, self._answer = owner, server, connection, answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in cast(AsyncIterable[bytes], self._answer.stream):
                yield piece
        except Exception as error:
            if (mapped := _of_httpx(error)) is not None:
                raise mapped from error
            raise

    async def aclose(self) -> None:
        await self._answer.aclose()
        await self._owner.give_back(self._server, self._connection)


def _has_more(connection: httpcore.AsyncHTTPConnection) -> bool:
    """Whether bytes came behind the answer: they would be the answer to the next request, which may be another's."""
    state = getattr(getattr(connection, "_connection", None), "_h11_state", None)
    return state is None or bool(state.trailing_data[0])


def _of_httpx(error: BaseException) -> httpx.TransportError | None:
    """httpcore's errors have httpx's names."""
    if not isinstance(error, (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)):
        return None
    mapped: httpx.TransportError = getattr(httpx, type(error).__name__)(str(error))
    return mapped
