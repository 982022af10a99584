"""HTTP/1.1 to the control plane on the event loop itself: one future a request, connections kept and taken again.

A general client crosses threads or layers for every request; this one writes a head and a body and reads the answer
(docs/performance.md has the figures). What it does not do, httpx does: Unix sockets, HTTP/2, proxies.
`NotSent` is raised only where no byte was written; whatever fails later is `MaybeProcessed`.
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
from noetl_worker.remote.transport.tls import TlsFiles
from noetl_worker.remote.transport.transport import (
    CONNECT_S,
    MAX_BODY_BYTES,
    SOCKET_OPTIONS,
    USER_AGENT,
    Body,
    Response,
    parts_of,
    size_of,
)
from noetl_worker.settings.settings import Settings

_Parser: Any
try:
    from httptools import HttpResponseParser as _Parser
except ImportError:
    from noetl_worker.remote.transport.h11_parser import H11ResponseParser as _Parser

MAX_IDLE_S: Final = 4.0
"""A kept connection is not used after so long: uvicorn closes at 5, and such a request may have been processed."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of one answer, for all that is not its content: head, interim answers, trailers, and what the frames of its chunks
have above a byte for each byte of content."""
_NO_LIMIT_S: Final = 365 * 86_400.0
_LONGEST_WRITE: Final = 64 * 1024
"""A longer body is written behind its head instead of being copied to it."""
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]")
_CONTENT_LENGTH: Final = frozenset({b"content-length", b"Content-Length"})


class Headers(Mapping[str, str]):
    """The headers of an answer, names in lower case. Read only by those who ask: most answers are judged by status."""

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


class _Broken(Exception):
    """The connection cannot be used any more; the text says what happened."""


class _TooLarge(_Broken):
    """The answer is larger than is read."""


class _Connection(asyncio.Protocol):
    """One connection: at most one request at a time."""

    def __init__(self, server: _Origin) -> None:
        self._server, self._loop = server, server.loop
        self._parser = _Parser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._pairs: list[tuple[bytes, bytes]] = []
        self._content = bytearray()
        self._size = 0
        self._has_head = False
        self._beside = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._idle_since = 0.0
        self._is_open = True
        self.unwritten = b""
        """A request that is written at the end of this turn of the loop."""

    # ── the request ──

    def is_usable(self, now: float) -> bool:
        """Whether a request may be written: nothing was closed or received, and the server has not got tired of it."""
        fresh = now - self._idle_since < MAX_IDLE_S
        return fresh and self._is_open and self._transport is not None and not self._transport.is_closing()

    def ask(self, deadline: float, request: bytes = b"") -> asyncio.Future[Response]:
        """The answer to a request that is written with the others of this turn, or by `send_parts`; or `_Broken`."""
        self._answer = answer = self._loop.create_future()
        self._deadline, self.unwritten, self._beside = deadline, request, 0
        # One timer for many requests: it is put off when it rings too early.
        if self._timer is None or self._rings_at > deadline:
            self._set_timer(deadline)
        return answer

    @staticmethod
    def write_all(connections: list[_Connection]) -> None:
        """What each has to write, but for those that were closed in this turn. Empties the list."""
        for connection in connections:
            request, transport = connection.unwritten, connection._transport
            if request and transport is not None and connection._is_open and not transport.is_closing():
                connection.unwritten = b""
                transport.write(request)
        del connections[:]

    async def send_parts(self, request: tuple[bytes, ...]) -> None:
        """Write a large request, no faster than the server reads it; an early answer ends it."""
        assert self._transport is not None
        for part in parts_of(request):
            while self._writable is not None and self._answer is not None and not self._answer.done():
                either: set[asyncio.Future[Any]] = {self._writable, self._answer}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._answer is None or self._answer.done():
                self._is_open = False  # what is left of the body would be read as the next request
                return
            self._transport.write(part)

    def close(self, why: str, kind: type[_Broken] = _Broken) -> None:
        """End it at once; a request that waits for its answer learns why."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._fail(why, kind)

    def _fail(self, why: str, kind: type[_Broken] = _Broken) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(kind(why))
        self.resume_writing()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        left = (self._idle_since + MAX_IDLE_S if self._answer is None else self._deadline) - now
        if left > 0:
            self._set_timer(now + left)
        else:
            self.close("no complete answer in time")

    # ── asyncio ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        for option in SOCKET_OPTIONS:
            transport.get_extra_info("socket").setsockopt(*option)
        self._idle_since = self._loop.time()

    def connection_lost(self, error: Exception | None) -> None:
        """Also when the server has closed its side: asyncio closes ours then."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if error is None and self._ends_with_the_connection():
            self.on_message_complete()
        self._fail(f"the connection was closed before the answer was complete{f': {error!r}' if error else ''}")
        self._server.lost(self)
        # They hold this object: without that it is freed now, and not whenever the collector comes.
        self._transport = None
        del self._parser

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self.unwritten:  # nobody asked: an answer too many, or a 408 before the closing
            self.close("data without a request")
            return
        self._beside += len(data)  # `on_body` takes off what is content
        try:
            self._parser.feed_data(data)
        except Exception as error:  # whatever a parser raises, this is no answer
            cause = error.__context__ or error  # httptools wraps what a callback raises
            if isinstance(cause, _TooLarge):
                self.close(str(cause), _TooLarge)
                return
            self.close(f"the answer cannot be read: {type(cause).__name__}: {cause}")
            return
        if self._beside > MAX_HEAD_BYTES:
            self.close(f"what the answer has beside its content is larger than {MAX_HEAD_BYTES} bytes")

    def _ends_with_the_connection(self) -> bool:
        if not self._has_head or self._answer is None:
            return False
        names = {name.lower() for name, _ in self._pairs}
        return b"content-length" not in names and b"transfer-encoding" not in names

    # ── the parser ──

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # nobody reads trailers
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        if self._beside > MAX_HEAD_BYTES and sum(map(len, chain(*self._pairs))) > MAX_HEAD_BYTES:
            raise ValueError(f"the head is larger than {MAX_HEAD_BYTES} bytes")
        for name, value in self._pairs:
            # In another spelling it is refused where its body is.
            if name in _CONTENT_LENGTH and int(value) > MAX_BODY_BYTES:
                raise _TooLarge(f"the answer is larger than {MAX_BODY_BYTES} bytes")
        self._has_head = True

    def on_body(self, part: bytes) -> None:
        size = len(part)
        self._content += part
        self._size += size
        left = self._beside - 2 * size
        self._beside = left if left > 0 else 0
        if self._size > MAX_BODY_BYTES:
            raise _TooLarge(f"the answer is larger than {MAX_BODY_BYTES} bytes")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        pairs, content = self._pairs, self._content
        self._pairs, self._content, self._size, self._has_head = [], bytearray(), 0, False
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            return
        answer, self._answer = self._answer, None
        if answer is None:
            raise ValueError("a second answer")
        if not answer.done():
            answer.set_result(Response(status, Headers(pairs), bytes(content)))
        self._idle_since = self._loop.time()
        if not self._parser.should_keep_alive():
            self._is_open = False

    def done(self) -> None:
        """Its request is over: kept for the next one, or closed."""
        answer = self._answer
        if answer is None and self._is_open:  # looked at again before it is used again
            self._server.release(self)
            return
        if answer is not None:
            answer.cancel()
        self.close("the request was given up")


class _Origin:
    """The connections to one origin."""

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
        """Of an address with a name and a password in it; empty without."""
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening = 0
        self.asking: list[_Connection] = []
        """Whose requests are written at the end of this turn of the loop, together: a server that has done the first
        one sleeps before the second is written, and whoever wakes it pays for that (10 to 20 µs)."""
        self._waiting: deque[asyncio.Future[_Connection | None]] = deque()

    async def connection(self, deadline: float, now: float) -> _Connection:
        """One to write to: the one used last, or a new one.

        Raises:
            TimeoutError, OSError, ssl.SSLError: there is none in time, or it cannot be made.
        """
        while self._idle:  # the last one first: the others grow old and go
            connection = self._idle.pop()
            if connection.is_usable(now):
                return connection
            connection.close("idle for too long")
        if len(self._open) + self._opening < self._most:
            return await self._opened(deadline)
        return await self._turn(deadline)

    async def _opened(self, deadline: float) -> _Connection:
        self._opening += 1
        connection: _Connection | None = None
        try:
            with anyio.fail_after(deadline - self.loop.time()):
                connection = await lookups.OWN.connected(self._host, self._port, self._connected)
            self._open.add(connection)
            return connection
        finally:
            self._opening -= 1
            if connection is None:
                event_loop.give(self._waiting, None)

    async def _connected(self, address: str) -> _Connection:
        context: ssl.SSLContext | None = self._tls.context() if self._is_tls else None
        _, connection = await self.loop.create_connection(
            lambda: _Connection(self), address, self._port, ssl=context, server_hostname=self._host if context else None
        )
        return connection

    async def _turn(self, deadline: float) -> _Connection:
        place: asyncio.Future[_Connection | None] = self.loop.create_future()
        self._waiting.append(place)
        try:
            with anyio.fail_after(deadline - self.loop.time()):
                given = await place
        except BaseException:
            if place.done() and not place.cancelled() and (late := place.result()) is not None:
                self.release(late)
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        now = self.loop.time()
        if given is not None and given.is_usable(now):
            return given
        return await self.connection(deadline, now)

    def release(self, connection: _Connection) -> None:
        if not self._waiting or not event_loop.give(self._waiting, connection):
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        event_loop.give(self._waiting, None)

    def close(self) -> None:
        for connection in list(self._open):
            connection.close("the worker has closed its connections")
        self._idle.clear()


class OnLoopTransport:
    def __init__(self, settings: Settings, *, max_connections: int = 64) -> None:
        self._tls = TlsFiles(settings.plane_tls)
        self._most = max_connections
        self._servers: dict[str, _Origin] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        """See `Transport.send`."""
        connect_s = CONNECT_S if timeout_s is None else timeout_s
        try:
            at = url.find("/", 8)  # behind http:// or https://
            origin, path = (url, "/") if at < 0 else (url[:at], url[at:])
            if origin not in self._servers:
                self._servers[origin] = _Origin(origin, self._tls, self._most)
            server = self._servers[origin]
            now = server.loop.time()
            head, later = _head(method, path, server, headers, body)
            connection = await server.connection(now + connect_s, now)
        except TimeoutError as error:
            raise NotSent(f"{method} {url}: no connection in {connect_s:g} s") from error
        except (OSError, ValueError, RuntimeError) as error:  # an SSLError is an OSError; no thread to look up a name
            raise NotSent(f"{method} {url}: {type(error).__name__}: {error}") from error
        deadline = now + (_NO_LIMIT_S if timeout_s is None else timeout_s)
        try:
            if later:
                answer = connection.ask(deadline)
                await connection.send_parts((head, *later))
                return await answer
            if not server.asking:
                server.loop.call_soon(connection.write_all, server.asking)
            server.asking += (connection,)
            return await connection.ask(deadline, head)
        except _Broken as error:
            if connection.unwritten:
                raise NotSent(f"{method} {url}: {error}") from error
            if isinstance(error, _TooLarge):
                raise AnswerTooLarge(f"{method} {url}: {error}") from error
            within = "" if timeout_s is None else f" (within {timeout_s:g} s)"
            raise MaybeProcessed(f"{method} {url}: {error}{within}") from error
        finally:
            connection.done()

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
    """The request, or the head of a large one and what is written behind it. ValueError for what would be more than one
    header, or no path."""
    if _UNSAFE.search(path):
        raise ValueError(f"the path {path!r} has characters that belong percent-encoded")
    own = ""
    for name in headers:
        line = f"{name}: {headers[name]}"
        if "\n" in line or "\r" in line:
            raise ValueError("a header has a line break in it")
        own += f"{line}\r\n"
    if server.authorization and "authorization" not in headers:
        own += server.authorization
    size = 0 if body is None else size_of(body) if type(body) is tuple else len(body)
    if body is not None or method != "GET":
        own += f"content-length: {size}\r\n"
    head = f"{method} {path}{server.head}{own}\r\n".encode("latin-1")
    if body is None:
        return head, ()
    if type(body) is bytes:
        return (head + body, ()) if size <= _LONGEST_WRITE else (head, (body,))
    return head, cast(tuple[bytes, ...], body)
