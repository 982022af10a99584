"""The transport that the settings name."""

from __future__ import annotations

import structlog

from noetl_worker.settings.settings import Settings
from noetl_worker.transport.transport import Transport

__all__ = ["open_transport"]

log = structlog.get_logger("noetl_worker.control_plane")


def open_transport(settings: Settings, *, max_connections: int = 64) -> Transport:
    """The transport that NOETL_WORKER_HTTP_TRANSPORT names; `auto` is the one on the event loop."""
    if settings.http_transport == "httpx":
        from noetl_worker.transport.over_httpx import HttpxTransport  # httpx takes 100 ms to import

        return HttpxTransport(settings, max_connections=max_connections)
    from noetl_worker.transport.on_loop import OnLoopTransport  # a pure install loads h11 with it

    if settings.http_transport == "pyreqwest":
        log.warning(
            "http_transport_replaced", asked_for="pyreqwest", using="on_loop", advice="set auto: pyreqwest is not used"
        )
    return OnLoopTransport(settings, max_connections=max_connections)
