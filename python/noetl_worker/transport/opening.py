"""The transport that the settings name."""

from __future__ import annotations

from noetl_worker.settings.settings import Settings
from noetl_worker.transport.transport import Transport


def open_transport(settings: Settings, *, max_connections: int = 64) -> Transport:
    """The transport that NOETL_WORKER_HTTP_TRANSPORT names; `auto` is the one on the event loop."""
    if settings.http_transport == "httpx":
        from noetl_worker.transport.over_httpx import HttpxTransport  # httpx takes 100 ms to import

        return HttpxTransport(settings, max_connections=max_connections)
    from noetl_worker.transport.on_loop import OnLoopTransport  # a pure install loads h11 with it

    return OnLoopTransport(settings, max_connections=max_connections)
