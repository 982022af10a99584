"""Factory of the HTTP transport to control planes. The factory imports the transport only when called, since the import
also loads an HTTP parser."""

from __future__ import annotations

from noetl_worker.remote.transport.transport import Transport
from noetl_worker.settings.settings import Settings


def open_transport(settings: Settings, *, max_connections: int = 64) -> Transport:
    from noetl_worker.remote.transport.on_loop import OnLoopTransport  # late: pure installs load h11 too

    return OnLoopTransport(settings, max_connections=max_connections)
