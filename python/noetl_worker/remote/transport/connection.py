"""HTTP/1.1 client connection, for planes and for the tools that use HTTP.

A parser (httptools or h11) reads the bytes of an answer and calls the methods of the connection. Subclasses differ in
how they hand on the answer. `on_loop.py` returns the answer whole; `tools/http/connection.py` passes on each piece of
the answer as it arrives.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, Generic, Protocol, TypeVar, cast

from noetl_worker.remote.transport.transport import SOCKET_OPTIONS

T = TypeVar("T")
MAX_IDLE_S: Final = 4.0
"""Longest idle time, in seconds, of a connection that the worker uses again. uvicorn closes an idle connection after 5
s. For a request sent at that moment, nobody knows whether uvicorn has processed the request."""
NO_LIMIT_S: Final = math.inf


class AnswerParser(Protocol):
    """Interface of a parser of HTTP answers, with httptools' method names. Bytes that are not HTTP raise an exception.

    The parser calls `on_header`, `on_headers_complete`, `on_body` and `on_message_complete` of the connection.
    """

    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Broken(Exception):
    """Error for a connection that can no longer be used. The text says what happened; `__cause__` is the reason."""

    def __init__(self, why: str, cause: Exception | None = None) -> None:
        super().__init__(why)
        self.__cause__ = cause


class Late(Broken):
    """Error for a connection whose deadline passed without a complete answer."""


class TooLarge(Broken):
    """Error for an answer above the size limit."""


class HttpConnection(asyncio.Protocol, Generic[T]):
    """Connection to one server, with at most one request at a time. T is the type of the answers."""

    _most_bytes: float
    """Largest content of one answer, in bytes."""
    _max_overhead: int
    """Largest number of bytes that one answer may have besides its content: head, interim answers, trailers and chunk
    framing. Each byte of content allows one more byte of chunk framing."""

    _parser: AnswerParser

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[T] | None = None
        self._is_asked = False
        """True from a request until the end of its answer."""
        self._pairs: list[tuple[bytes, bytes]] = []
        self._content = bytearray()
        self._size = 0
        self._has_head = False
        self._overhead = 0
        self._deadline = 0.0
        """Time, by the loop's clock, at which the current wait ends or the idle connection expires."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = NO_LIMIT_S
        self._writable: asyncio.Future[None] | None = None
        """Future that the worker waits for while the server reads more slowly than the worker writes, else None."""
        self.is_open = True

    def is_usable(self, now: float) -> bool:
        """Return whether a request may be written now. The connection must be open, without an unfinished answer, and
        not idle for too long."""
        is_idle = self.is_open and not self._is_asked and now < self._deadline
        return is_idle and self._transport is not None and not self._transport.is_closing()

    def expect(self, deadline: float) -> asyncio.Future[T]:
        """Return a future for the answer; the subclass sets its result. The future raises Broken at `deadline` (by the
        loop's clock), or when the connection breaks."""
        self.waiter = waiter = self._loop.create_future()
        self._deadline = deadline
        # One timer serves many requests: when it rings too early, it is set again.
        if deadline < self._rings_at:
            self._set_timer(deadline)
        return waiter

    def close(self, why: Broken) -> None:
        """End the connection at once, without waiting for the server. A waiting request raises Broken."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    def _end(self, why: Broken) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, NO_LIMIT_S
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(why)
        self.resume_writing()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        self._timer, self._rings_at = None, NO_LIMIT_S
        if self._deadline <= self._loop.time():
            self.close(Late("no complete answer in time"))
        elif self._deadline < NO_LIMIT_S:
            self._set_timer(self._deadline)

    # ── the parser ──

    def _new_parser(self) -> AnswerParser:
        raise NotImplementedError

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # nobody reads trailers
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, part: bytes) -> None:
        size = len(part)
        self._content += part
        self._size += size
        left = self._overhead - 2 * size
        self._overhead = left if left > 0 else 0
        if self._size > self._most_bytes:
            raise TooLarge(f"the server's answer is larger than {self._most_bytes} bytes")

    def on_message_complete(self) -> None:
        raise NotImplementedError

    # ── asyncio ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        for option in SOCKET_OPTIONS:
            transport.get_extra_info("socket").setsockopt(*option)
        self._deadline = self._loop.time() + MAX_IDLE_S
        self._parser = self._new_parser()  # only now: a failed handshake leaves no cycle

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the waiting request. asyncio calls this method even if only the server has closed its side."""
        self.is_open = False
        self._transport = None
        told = f": {error!r}" if error else ""
        self._end(Broken(f"the connection was closed before the answer was complete{told}", error))

    def data_received(self, data: bytes) -> None:
        """Pass the bytes to the parser. Close the connection if the bytes cannot be read or exceed the limits."""
        if not self._is_asked:  # an extra answer, or a 408 before the server closes
            self.close(Broken("the server sent data that no request asked for"))
            return
        self._overhead += len(data)  # `on_body` subtracts the content
        try:
            self._parser.feed_data(data)
        except Exception as error:  # a parser may raise anything; httptools wraps errors of callbacks
            cause = error.__context__ or error
            unread = Broken(f"the answer cannot be read: {cause!r}", error)
            self.close(cause if isinstance(cause, TooLarge) else unread)
            return
        if self._overhead > self._max_overhead:
            self.close(Broken(f"the answer has more than {self._max_overhead} bytes beside its content"))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
