"""HTTP/1.1 client for control planes, on the event loop itself. Each request has one future, and connections are
reused.

A general HTTP client hands each request through threads or layers. This client writes a head and a body, and reads the
answer (docs/performance.md has the figures). Proxies, Unix sockets and HTTP/2 are not supported, because no plane needs
them.

`NotSent` is raised only if no byte was written; any later failure is `MaybeProcessed`.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import anyio

from noetl_worker.errors import AnswerTooLarge, MaybeProcessed, NotSent
from noetl_worker.process import event_loop, lookups
from noetl_worker.process.threads import LARGE
from noetl_worker.remote.transport.connection import (
    MAX_IDLE_S,
    NO_LIMIT_S,
    AnswerParser,
    Broken,
    HttpConnection,
    TooLarge,
)
from noetl_worker.remote.transport.tls import TlsFiles
from noetl_worker.remote.transport.transport import (
    CONNECT_S,
    MAX_BODY_BYTES,
    USER_AGENT,
    Body,
    Response,
    body_parts,
    body_size,
)
from noetl_worker.settings.settings import Settings

_Parser: Any
try:
    from httptools import HttpResponseParser as _Parser
except ImportError:
    from noetl_worker.remote.transport.h11_parser import H11Parser as _Parser

_LONGEST_WRITE: Final = 64 * 1024
"""Largest body, in bytes, that is joined with its head into one write. A larger body is written separately, to avoid a
copy."""
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]")
_CONTENT_LENGTH: Final = frozenset({b"content-length", b"Content-Length"})


class Headers(Mapping[str, str]):
    """Headers of an answer, with names in lower case. Headers are decoded on first use, because nobody reads the
    headers of most answers."""

    __slots__ = ("_pairs", "_read")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._read: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._read is None:
            self._read = {}
            for raw_name, raw_value in self._pairs:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
                self._read[name] = f"{self._read[name]}, {value}" if name in self._read else value
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class _PlaneConnection(HttpConnection[Response]):
    """Connection to a plane, which returns each answer in one piece."""

    _most_bytes = MAX_BODY_BYTES
    _max_overhead = 64 * 1024

    def __init__(self, server: _Origin) -> None:
        super().__init__()
        self._server = server
        self.unwritten = b""
        """HTTP request that waits to be sent at the end of this iteration of the event loop. Empty if none waits."""

    # ── the request ──

    @staticmethod
    def write_all(connections: list[_PlaneConnection]) -> None:
        """Write the waiting request of each connection that is still open. Then empty the list."""
        for connection in connections:
            request, transport = connection.unwritten, connection._transport
            if request and transport is not None and connection.is_open and not transport.is_closing():
                connection.unwritten, connection._is_asked = b"", True
                transport.write(request)
        del connections[:]

    async def send_parts(self, request: tuple[bytes, ...]) -> None:
        """Write a large request, no faster than the server reads it. If the answer comes early, stop writing."""
        assert self._transport is not None
        self._is_asked = True
        for part in body_parts(request):
            while self._writable is not None and self.waiter is not None and not self.waiter.done():
                either: set[asyncio.Future[Any]] = {self._writable, self.waiter}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self.waiter is None or self.waiter.done():
                self.is_open = False  # the rest of the body would be read as the next request
                return
            self._transport.write(part)

    # ── asyncio ──

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._ends_with_the_connection():
            self.on_message_complete()
        super().connection_lost(error)
        self._server.lost(self)
        del self._parser  # the parser refers to this object; without the cycle both are freed at once

    def _ends_with_the_connection(self) -> bool:
        if not self._has_head or self.waiter is None:
            return False
        names = {name.lower() for name, _ in self._pairs}
        return b"content-length" not in names and b"transfer-encoding" not in names

    # ── the parser ──

    def _new_parser(self) -> AnswerParser:
        parser: AnswerParser = _Parser(self)
        return parser

    def on_headers_complete(self) -> None:
        if self._overhead > self._max_overhead and sum(map(len, chain(*self._pairs))) > self._max_overhead:
            raise ValueError(f"the headers of the answer have more than {self._max_overhead} bytes")
        for name, value in self._pairs:
            # With another spelling of the name, `on_body` refuses a large answer.
            if name in _CONTENT_LENGTH and int(value) > MAX_BODY_BYTES:
                raise TooLarge(f"the server's answer is larger than {MAX_BODY_BYTES} bytes")
        self._has_head = True

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        pairs, content = self._pairs, self._content
        self._pairs, self._content, self._size, self._has_head = [], bytearray(), 0, False
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            return
        waiter, self.waiter = self.waiter, None
        self._is_asked, self._overhead = False, 0
        if waiter is None:
            raise ValueError("a second answer")
        if not waiter.done():
            waiter.set_result(Response(status, Headers(pairs), bytes(content)))
        self._deadline = self._loop.time() + MAX_IDLE_S
        if not self._parser.should_keep_alive():
            self.is_open = False


class _Origin:
    def __init__(self, origin: str, tls: TlsFiles, most: int) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{origin!r} is not an http:// or https:// address")
        self._host, self._is_tls = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls, self._most = tls, most
        self.loop: Final = asyncio.get_running_loop()
        self.head: Final = (
            f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\nuser-agent: {USER_AGENT}\r\n"
            "accept-encoding: identity\r\n"
        )
        self.authorization: Final = _basic(parts.username, parts.password)
        """Basic authorization header, if the address has user-info; otherwise empty."""
        self._idle: list[_PlaneConnection] = []
        self._open: set[_PlaneConnection] = set()
        self._opening = 0
        self.asking: list[_PlaneConnection] = []
        """Connections whose requests are written together at the end of this iteration of the event loop.

        With separate writes, the server would sleep between two requests. Waking the server costs the sender 10 to 20
        µs each time.
        """
        self._waiting: deque[asyncio.Future[_PlaneConnection | None]] = deque()

    async def connection(self, deadline: float, now: float) -> _PlaneConnection:
        """Return a connection for a request: the idle connection that was used last, else a new connection. At the
        limit of connections, wait until a connection is free.

        Raises:
            TimeoutError, OSError, ssl.SSLError: no connection is free before `deadline`, or none can be opened.
        """
        while self._idle:  # the last one first, so that the others expire
            connection = self._idle.pop()
            if connection.is_usable(now):
                return connection
            connection.close(Broken("idle for too long"))
        if len(self._open) + self._opening < self._most:
            return await self._opened(deadline)
        return await self._turn(deadline)

    async def _opened(self, deadline: float) -> _PlaneConnection:
        self._opening += 1
        connection: _PlaneConnection | None = None
        try:
            with anyio.fail_after(deadline - self.loop.time()):
                connection = await lookups.OWN.connected(self._host, self._port, self._connected)
            self._open.add(connection)
            return connection
        finally:
            self._opening -= 1
            if connection is None:
                event_loop.wake_first(self._waiting, None)

    async def _connected(self, address: str) -> _PlaneConnection:
        context: ssl.SSLContext | None = self._tls.context() if self._is_tls else None
        name = self._host if context else None
        _, connection = await self.loop.create_connection(
            lambda: _PlaneConnection(self), address, self._port, ssl=context, server_hostname=name
        )
        return connection

    async def _turn(self, deadline: float) -> _PlaneConnection:
        place: asyncio.Future[_PlaneConnection | None] = self.loop.create_future()
        self._waiting.append(place)
        try:
            with anyio.fail_after(deadline - self.loop.time()):
                given = await place
        except BaseException:
            if place.done() and not place.cancelled():  # the next request gets what came for this one
                late = place.result()
                if late is None:
                    event_loop.wake_first(self._waiting, None)
                else:
                    self.release(late)
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        now = self.loop.time()
        if given is not None and given.is_usable(now):
            return given
        return await self.connection(deadline, now)

    def release(self, connection: _PlaneConnection) -> None:
        """Keep the connection of a finished request for reuse, or close it if the answer is incomplete."""
        waiter = connection.waiter
        if waiter is not None:
            waiter.cancel()
        if waiter is not None or not connection.is_open:
            connection.close(Broken("the request was given up"))
        elif not self._waiting or not event_loop.wake_first(self._waiting, connection):
            self._idle.append(connection)

    def lost(self, connection: _PlaneConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        event_loop.wake_first(self._waiting, None)

    def close(self) -> None:
        for connection in list(self._open):
            connection.close(Broken("the worker has closed its connections"))
        self._idle.clear()


class OnLoopTransport:
    def __init__(self, settings: Settings, *, max_connections: int = 64) -> None:
        self._tls = TlsFiles(settings.plane_tls)
        self._most = max_connections
        self._servers: dict[str, _Origin] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        """Send one request over a reused or new connection, and return its answer (see `Transport.send`)."""
        connect_s = CONNECT_S if timeout_s is None else timeout_s
        try:
            at = url.find("/", 8)  # after http:// or https://
            origin, path = (url, "/") if at < 0 else (url[:at], url[at:])
            if origin not in self._servers:
                self._servers[origin] = _Origin(origin, self._tls, self._most)
            server = self._servers[origin]
            now = server.loop.time()
            head, later = _head(method, path, server, headers, body)
            connection = await server.connection(now + connect_s, now)
        except TimeoutError as error:
            raise NotSent(f"{method} {url}: no connection in {connect_s:g} s; check that this server is up") from error
        except (OSError, ValueError, RuntimeError) as error:  # SSLError is an OSError; RuntimeError: no thread
            raise NotSent(f"{method} {url}: {type(error).__name__}: {error}") from error
        deadline = now + (NO_LIMIT_S if timeout_s is None else timeout_s)
        try:
            if later:
                waiting = connection.expect(deadline)
                await connection.send_parts((head, *later))
                answer = await waiting
            else:
                if not server.asking:
                    server.loop.call_soon(connection.write_all, server.asking)
                server.asking += (connection,)
                connection.unwritten = head
                answer = await connection.expect(deadline)
        except Broken as error:
            if connection.unwritten:
                raise NotSent(f"{method} {url}: {error}") from error
            if isinstance(error, TooLarge):
                raise AnswerTooLarge(f"{method} {url}: {error}") from error
            within = "" if timeout_s is None else f" (within {timeout_s:g} s)"
            raise MaybeProcessed(f"{method} {url}: {error}{within}") from error
        finally:
            server.release(connection)
        return answer if len(answer.body) <= LARGE else await answer.read()

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        await asyncio.sleep(0)  # the loop closes what was aborted in its next step


def _basic(name: str | None, password: str | None) -> str:
    if name is None:
        return ""
    pair = f"{unquote(name)}:{unquote(password or '')}".encode()
    return f"authorization: Basic {base64.b64encode(pair).decode()}\r\n"


def _head(
    method: str, path: str, server: _Origin, headers: Mapping[str, str], body: Body | None
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the bytes of a request: (head and body, ()) for a small request, (head, parts of the body) for a large
    request.

    Raises:
        ValueError: a header has a line break, or the path has unsafe characters.
    """
    if _UNSAFE.search(path):
        raise ValueError(f"the path {path!r} has characters that must be percent-encoded")
    own = ""
    for name in headers:
        line = f"{name}: {headers[name]}"
        if "\n" in line or "\r" in line:
            raise ValueError("a header has a line break in it")
        own += f"{line}\r\n"
    if server.authorization and "authorization" not in headers:
        own += server.authorization
    size = 0 if body is None else body_size(body) if type(body) is tuple else len(body)
    if body is not None or method != "GET":
        own += f"content-length: {size}\r\n"
    head = f"{method} {path}{server.head}{own}\r\n".encode("latin-1")
    if body is None:
        return head, ()
    if type(body) is bytes:
        return (head + body, ()) if size <= _LONGEST_WRITE else (head, (body,))
    return head, cast(tuple[bytes, ...], body)
