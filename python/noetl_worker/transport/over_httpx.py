"""Control-plane requests over httpx: on every platform, and with any transport a user brings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import anyio
import httpx

from noetl_worker.errors import MaybeProcessed, NotSent
from noetl_worker.settings.settings import Settings
from noetl_worker.transport.tls import TlsFiles
from noetl_worker.transport.transport import (
    CONNECT_S,
    MAX_BODY_BYTES,
    SOCKET_OPTIONS,
    USER_AGENT,
    Body,
    Response,
    parts_of,
    size_of,
)

_NOT_SENT = (httpx.InvalidURL, httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class HttpxTransport:
    name = "httpx"

    def __init__(
        self, settings: Settings, *, max_connections: int = 64, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx.AsyncClient(
            transport=transport or _transport(settings, max_connections),
            headers={"user-agent": USER_AGENT},
            follow_redirects=False,
            # Proxies and .netrc of the environment are for the world outside, not for the control plane.
            trust_env=False,
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        try:
            with anyio.fail_after(timeout_s):
                return await self._send(method, url, headers, body, timeout_s)
        except _NOT_SENT as error:
            raise NotSent(f"{method} {url}: {type(error).__name__}: {error}") from error
        except TimeoutError as error:
            raise MaybeProcessed(f"{method} {url}: no complete answer in {timeout_s} s") from error
        except (httpx.HTTPError, RuntimeError) as error:  # no thread to look up a name
            raise MaybeProcessed(f"{method} {url}: {type(error).__name__}: {error}") from error

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        all_headers, content = dict(headers), body if not isinstance(body, tuple) else _streamed(body)
        if isinstance(body, tuple):
            all_headers["content-length"] = str(size_of(body))
        request = self._client.build_request(
            method,
            url,
            headers=all_headers,
            content=content,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S if timeout_s is None else timeout_s),
        )
        response = await self._client.send(request, stream=True)
        try:
            received = await _received(response)
        finally:
            await response.aclose()
        if received is None:
            raise MaybeProcessed(f"{method} {url}: the answer is larger than {MAX_BODY_BYTES} bytes")
        return Response(response.status_code, dict(response.headers), received)

    async def close(self) -> None:
        await self._client.aclose()


def _transport(settings: Settings, max_connections: int) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        verify=TlsFiles(settings.plane_tls).context() if any(settings.plane_tls) else True,
        limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        trust_env=False,
        socket_options=SOCKET_OPTIONS,
    )


async def _received(response: httpx.Response) -> bytes | None:
    """The body; None when it is larger than MAX_BODY_BYTES, declared or counted (after decompression)."""
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        return None
    received = bytearray()
    async for chunk in response.aiter_bytes():
        received += chunk
        if len(received) > MAX_BODY_BYTES:
            return None
    return bytes(received)


async def _streamed(body: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for part in parts_of(body):
        yield bytes(part)
