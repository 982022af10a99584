"""HTTP transport to a control plane that adds trace headers to each request."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from noetl_worker.observability.tracing import trace_headers
from noetl_worker.remote.transport.transport import Body, Response, Transport


class TracedTransport:
    """Wrapper around a transport, which adds the trace headers of the current command to each request."""

    def __init__(self, below: Transport) -> None:
        self._below = below

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Coroutine[Any, Any, Response]:
        return self._below.send(method, url, {**headers, **trace_headers()}, body, timeout_s)

    async def close(self) -> None:
        await self._below.close()
