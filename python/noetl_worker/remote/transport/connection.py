"""One client connection of HTTP/1.1, for planes and for the tools that speak HTTP.

The bytes of an answer go to a parser, which says here what they are: httptools' or h11's. A subclass decides who gets
the answer: `on_loop.py` gives it whole, `tools/http/connection.py` in the pieces it comes in.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, Generic, Protocol, TypeVar, cast

from noetl_worker.remote.transport.transport import SOCKET_OPTIONS

T = TypeVar("T")
MAX_IDLE_S: Final = 4.0
"""A kept connection is not used after so long: uvicorn closes at 5, and such a request may have been processed."""
NO_LIMIT_S: Final = math.inf


class AnswerParser(Protocol):
    """A parser of answers. It calls `on_header`, `on_headers_complete`, `on_body` and `on_message_complete`, and raises
    for what is no HTTP. The names are httptools'."""

    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Broken(Exception):
    """The connection cannot be used any more; the text says what happened, the cause why."""

    def __init__(self, why: str, cause: Exception | None = None) -> None:
        super().__init__(why)
        self.__cause__ = cause


class Late(Broken):
    """Nothing came until the deadline."""


class TooLarge(Broken):
    """The answer is larger than is read."""


class HttpConnection(asyncio.Protocol, Generic[T]):
    """A connection to one server, with at most one request at a time; T is what a request waits for."""

    _most_bytes: float
    """Content of one answer."""
    _most_beside: int
    """Bytes of one answer that are not its content: head, interim answers, trailers, and what the frames of its chunks
    have above a byte for each byte of content."""

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
        self._beside = 0
        self._deadline = 0.0
        """End of what is waited for, or of an idle connection."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = NO_LIMIT_S
        self._writable: asyncio.Future[None] | None = None
        """Set while the server reads more slowly than we write."""
        self.is_open = True

    def is_usable(self, now: float) -> bool:
        """Return whether a request may be written: the last answer was read, nothing was closed or came since, and the
        server has not got tired of the connection."""
        is_idle = self.is_open and not self._is_asked and now < self._deadline
        return is_idle and self._transport is not None and not self._transport.is_closing()

    def expect(self, deadline: float) -> asyncio.Future[T]:
        """Return a future that a subclass sets, or that raises Broken at `deadline` and when the connection breaks."""
        self.waiter = waiter = self._loop.create_future()
        self._deadline = deadline
        # One timer for many requests: it is put off when it rings too early.
        if deadline < self._rings_at:
            self._set_timer(deadline)
        return waiter

    def close(self, why: Broken) -> None:
        """End the connection at once; a request that waits raises Broken. Nobody waits for the server's goodbye."""
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
        left = self._beside - 2 * size
        self._beside = left if left > 0 else 0
        if self._size > self._most_bytes:
            raise TooLarge(f"the answer is larger than {self._most_bytes} bytes")

    def on_message_complete(self) -> None:
        raise NotImplementedError

    # ── asyncio ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        for option in SOCKET_OPTIONS:
            transport.get_extra_info("socket").setsockopt(*option)
        self._deadline = self._loop.time() + MAX_IDLE_S
        self._parser = self._new_parser()  # not before: of a handshake that fails no cycle is left

    def connection_lost(self, error: Exception | None) -> None:
        """Also when the server has closed its side: asyncio closes ours then."""
        self.is_open = False
        self._transport = None
        told = f": {error!r}" if error else ""
        self._end(Broken(f"the connection was closed before the answer was complete{told}", error))

    def data_received(self, data: bytes) -> None:
        """Read on in the answer; an answer that cannot be read, or does not end, closes the connection."""
        if not self._is_asked:  # an answer too many, or a 408 before the closing
            self.close(Broken("data without a request"))
            return
        self._beside += len(data)  # `on_body` takes off what is content
        try:
            self._parser.feed_data(data)
        except Exception as error:  # whatever a parser raises; httptools wraps what a callback does
            cause = error.__context__ or error
            unread = Broken(f"the answer cannot be read: {cause!r}", error)
            self.close(cause if isinstance(cause, TooLarge) else unread)
            return
        if self._beside > self._most_beside:
            self.close(Broken(f"what the answer has beside its content is over {self._most_beside} bytes"))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
