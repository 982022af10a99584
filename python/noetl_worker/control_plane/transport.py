"""The seam below the control-plane client: one request in, one answer or one of two errors out.

Two implementations: httpx, which always works and takes a user's own transport (mTLS, proxies, tests), and
pyreqwest, which costs a thirtieth of it. Errors say whether the request may have been processed: NotSent is safe to
repeat, MaybeProcessed only with the same identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias

import structlog

from noetl_worker.errors import SettingsError
from noetl_worker.settings import Settings

__all__ = ["Body", "Response", "Transport", "open_transport", "parts_of", "size_of"]

USER_AGENT = "noetl-worker"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""As the Rust plane's own limit (wire.md 3.9). A larger answer is refused instead of filling the memory."""
Body: TypeAlias = bytes | tuple[bytes, ...]
"""A tuple's parts are sent one after the other and never put together: a large result is not copied to be sent."""
_PART_BYTES: Final = 256 * 1024
log = structlog.get_logger("noetl_worker.control_plane")


def size_of(body: tuple[bytes, ...]) -> int:
    return sum(map(len, body))


def parts_of(body: tuple[bytes, ...]) -> Iterator[memoryview]:
    """Views of the body, small enough that what is under way does not fill the memory either."""
    for part in body:
        whole = memoryview(part)
        for start in range(0, len(whole), _PART_BYTES):
            yield whole[start : start + _PART_BYTES]


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Transport(Protocol):
    name: str

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float
    ) -> Response:
        """Send one request; `timeout_s` covers it whole, a trickling body included. Of an answer at most
        MAX_BODY_BYTES are read, whatever its headers say.

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
