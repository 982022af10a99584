"""The transport of control-plane requests, imported when it is needed."""

from __future__ import annotations

from noetl_worker.remote.transport.transport import Transport
from noetl_worker.settings.settings import Settings


def open_transport(settings: Settings, *, max_connections: int = 64) -> Transport:
    from noetl_worker.remote.transport.on_loop import OnLoopTransport  # a pure install loads h11 with it

    return OnLoopTransport(settings, max_connections=max_connections)
