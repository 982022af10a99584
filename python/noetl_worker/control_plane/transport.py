"""The seam below the control-plane client: one request in, one answer or one of two errors out.

Two implementations: httpx, which always works and takes a user's own transport (mTLS, proxies, tests), and
pyreqwest, which costs a thirtieth of it. Errors say whether the request may have been processed: NotSent is safe to
repeat, MaybeProcessed only with the same identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import structlog

from noetl_worker.errors import SettingsError
from noetl_worker.settings import Settings

__all__ = ["Response", "Transport", "open_transport"]

USER_AGENT = "noetl-worker"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""As the Rust plane's own limit (wire.md 3.9). A larger answer is refused instead of filling the memory."""
log = structlog.get_logger("noetl_worker.control_plane")


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Transport(Protocol):
    name: str

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Response:
        """Send one request; `timeout_s` covers it whole, a trickling body included.

        Raises:
            NotSent: it did not leave.
            MaybeProcessed: it left, and no whole answer came back in time.
        """
        ...

    async def close(self) -> None: ...


def open_transport(settings: Settings, *, max_connections: int = 64) -> Transport:
    """The transport that NOETL_WORKER_HTTP_TRANSPORT names; `auto` is pyreqwest where it is installed.

    Raises:
        SettingsError: pyreqwest was asked for and is not installed.
    """
    from noetl_worker.control_plane.transport_httpx import HttpxTransport

    if settings.http_transport != "httpx":
        try:
            from noetl_worker.control_plane.transport_pyreqwest import PyreqwestTransport
        except ImportError:
            if settings.http_transport == "pyreqwest":
                raise SettingsError(
                    "NOETL_WORKER_HTTP_TRANSPORT", "pyreqwest", "auto or httpx: pyreqwest is not installed"
                ) from None
            log.info("http_transport", using="httpx", advice="pip install pyreqwest is a twentieth of the CPU time")
        else:
            return PyreqwestTransport(settings, max_connections=max_connections)
    return HttpxTransport(settings, max_connections=max_connections)
