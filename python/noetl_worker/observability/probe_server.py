"""The HTTP server of the probe port. Each connection serves one request. The number and the duration of connections are
bounded.

Connections take file descriptors that the tools need: 1,100 idle connections once made every tool fail with EMFILE.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import structlog

from noetl_worker.errors import SettingsError
from noetl_worker.process.handed_down import listening_socket
from noetl_worker.text import json_text

MAX_CONNECTIONS: Final = 64
"""Largest number of open connections. A further connection closes the oldest, so that a new probe is always
answered."""
MAX_HEAD_BYTES: Final = 16 * 1024
log = structlog.get_logger("noetl_worker.probes")


Page: TypeAlias = Callable[[], Awaitable[tuple[int, Mapping[str, Any] | bytes]]]
"""Async function that returns the HTTP status and the body of a page. The body is a JSON object, or the text of metrics
as bytes."""


async def _serves() -> tuple[int, Mapping[str, Any]]:
    return 200, {"status": "ok"}


class ProbeServer:
    """The HTTP server of the probe pages. A page under /debug/ needs a client on loopback, or the debug token."""

    def __init__(self, pages: Mapping[str, Page], *, debug_token: str = "", answered_within_s: float = 5.0) -> None:
        """Create a server that does not listen yet.

        Args:
            pages: the pages by their paths; /healthz is added.
            debug_token: bearer token for pages under /debug/; "" if there is none.
            answered_within_s: seconds after which a connection is closed, answered or not.
        """
        self.answered_within_s: Final = answered_within_s
        self.connections: Final[dict[asyncio.WriteTransport, None]] = {}
        """Open connections, the oldest first."""
        self.port = 0
        self._pages: Final = {"/healthz": _serves, **pages}
        self._debug_token = debug_token
        self._server: asyncio.Server | None = None

    async def open(self, bind: str) -> None:
        """Listen at `bind` (HOST:PORT), or on the socket that the supervisor handed down.

        Raises:
            SettingsError: the address cannot be listened at.
        """
        host, _, port = bind.rpartition(":")
        try:
            listening = listening_socket() or listening_at(host.strip("[]"), int(port))
        except OSError as error:
            advice = f"give a free address ({error}), or leave it empty to switch the probes off"
            raise SettingsError("WORKER_METRICS_BIND", bind, advice) from error
        # asyncio accepts up to a whole backlog of connections at once, before it can close the oldest
        self._server = await asyncio.start_server(
            self._connected, sock=listening, backlog=MAX_CONNECTIONS, limit=MAX_HEAD_BYTES
        )
        self.port = listening.getsockname()[1]
        log.info("probes_listening", host=host, port=self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for transport in list(self.connections):
                transport.abort()
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection. If there are too many connections, close the oldest."""
        transport = writer.transport
        # `close` would wait for a client that does not read
        deadline = asyncio.get_running_loop().call_later(self.answered_within_s, transport.abort)
        self.connections[transport] = None
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = next(iter(self.connections))
            del self.connections[oldest]  # not counted any more, although asyncio closes it only in its next turn
            oldest.abort()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            peer = transport.get_extra_info("peername")  # None: the client has gone
            answer = await self.respond(head, peer[0] if peer else "")
            if not transport.is_closing():  # writing to a closed one raises a RuntimeError in uvloop
                writer.write(answer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            transport.abort()
        finally:
            deadline.cancel()
            self.connections.pop(transport, None)

    async def respond(self, head: bytes, peer: str) -> bytes:
        """Return the bytes of the answer to a request.

        Args:
            head: request line and headers.
            peer: IP address of the client.
        """
        request_line, *lines = head.decode("latin-1").split("\r\n")
        method, _, target = request_line.rpartition(" HTTP/1.")[0].partition(" ")
        path = target.partition("?")[0]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body: Mapping[str, Any] | bytes
        if not path:
            status, body = 400, {"error": "the request is not HTTP: send GET or HEAD"}
        elif path not in self._pages:
            status, body = 404, {"error": f"there is no such page: ask for {', '.join(self._pages)}"}
        elif method not in ("GET", "HEAD"):
            status, body = 405, {"error": "the method is not allowed: send GET or HEAD"}
        elif path.startswith("/debug/") and not self._is_admitted(peer, headers):
            advice = (
                "this page answers only this machine: ask for it by this machine's address or name, or send "
                "NOETL_WORKER_DEBUG_TOKEN as a bearer token"
            )
            status, body = 403, {"error": advice}
        else:
            status, body = await self._pages[path]()
        content = body if isinstance(body, bytes) else json_text.dumps(body)
        kind = "text/plain; version=0.0.4; charset=utf-8" if content is body else "application/json"
        answer = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        return answer.encode() + (b"" if method == "HEAD" else content)

    def _is_admitted(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Return True if a request may see the pages under /debug/: it has the debug token, or comes from loopback.

        Headers that name the client, such as X-Forwarded-For, are not trusted. A request from loopback is refused if
        its Host header names another machine: a page in a local browser may use a name that resolves to this machine
        (DNS rebinding).
        """
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self._debug_token and hmac.compare_digest(given.encode(), self._debug_token.encode()):
            return True
        address = _address(peer)
        if address is None or not _is_own_name(headers.get("host", "localhost")):
            return False
        return (
            getattr(address, "ipv4_mapped", None) or address
        ).is_loopback  # before Python 3.12.2, is_loopback is False for ::ffff:127.0.0.1


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_own_name(host: str) -> bool:
    """Return True if a Host header has an IP address, localhost or the machine's name, with any port."""
    name = host.lower()
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    own = socket.gethostname().lower()
    return name in ("localhost", own, own.partition(".")[0]) or _address(name.strip("[]")) is not None


def listening_at(host: str, port: int) -> socket.socket:
    """Open the listening socket. The host `::` listens on all IPv6 and IPv4 addresses, if the machine supports both."""
    if ":" not in host:
        return socket.create_server((host, port))
    is_both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=is_both)
