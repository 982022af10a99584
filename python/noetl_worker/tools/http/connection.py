"""An HTTP connection of a tool. It returns the pieces of an answer's body as they arrive. It stops reading while the
caller is slower than the server."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final, NoReturn

import h11
import httpx

from noetl_worker.remote.transport.connection import MAX_IDLE_S, NO_LIMIT_S, Broken, HttpConnection, Late
from noetl_worker.remote.transport.h11_parser import H11Parser

_MOST_HELD: Final = 1 << 16
"""Maximum number of received bytes that the caller has not read yet. Above this limit the connection stops reading, and
the server must wait."""
_CHUNK: Final = 16
"""Bytes that each chunk of a body adds to the answer's overhead, the bytes that are not content. The overhead has a
limit (`_max_overhead`), so a server cannot send too many tiny chunks, which cost as much time as larger ones."""
_EVENTS_AT_ONCE: Final = 64
"""Maximum number of chunks read in a row before other tasks can run."""


class StreamedConnection(HttpConnection[None]):
    """An HTTP connection of a tool, for one exchange at a time: `ask`, then `next_piece` to the end of the body. An
    error closes the connection.

    Raises:
        httpx.TransportError: the network failed, or the answer is not HTTP/1.1.
    """

    _parser: H11Parser
    _most_bytes = math.inf  # the caller, who takes the pieces, has a limit
    _max_overhead = 128 * 1024

    def __init__(self) -> None:
        super().__init__()
        self._arrived = bytearray()
        self._failure: Broken | None = None
        """The error for which the worker closed the connection. Bytes that have arrived but were not read are
        dropped."""
        self._lost: Exception | None = None
        """The error with which the network closed the connection. Bytes that arrived before the error are still
        parsed."""
        self._read_s = NO_LIMIT_S

    async def ask(self, request: httpx.Request, body: httpx.AsyncByteStream) -> httpx.Response:
        """Send the request, and return the answer as soon as the answer's status and headers have arrived. The caller
        then reads the answer's body from the stream `body`, which gets its bytes from `next_piece` of this
        connection."""
        self._read_s = request.extensions.get("timeout", {}).get("read") or NO_LIMIT_S
        self._pairs, self._size, self._beside, self._has_head = [], 0, 0, False
        self._is_asked = True
        self._deadline = NO_LIMIT_S
        try:
            with suppress(Broken):  # a server may answer before it has read all
                await self._write(request)
            while not self._has_head:
                await self._read_on()
        except BaseException as error:
            await self.aclose()
            _raise_as_httpx(error)
        head = self._parser.head
        assert head is not None
        extensions = {"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason}
        return httpx.Response(head.status_code, headers=self._pairs, stream=body, extensions=extensions)

    async def next_piece(self) -> bytes | None:
        """Return the bytes of the body that have arrived, or None at the body's end."""
        try:
            while not self._content:
                if not self._is_asked:
                    return None
                await self._read_on()
        except BaseException as error:
            await self.aclose()
            _raise_as_httpx(error)
        piece, self._content = bytes(self._content), bytearray()
        return piece

    async def _write(self, request: httpx.Request) -> None:
        head = h11.Request(method=request.method.encode(), target=request.url.raw_path, headers=request.headers.raw)
        await self._send(head)  # at once: the connection was checked just now, and a body may take a while to come
        stream = request.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async for piece in stream:
            if piece:  # httpx sends an empty piece if there is no body
                await self._send(h11.Data(data=piece))
        await self._send(h11.EndOfMessage())

    async def _send(self, part: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send a part of the request (head, body data or end). Raise Broken if the connection is closed."""
        data = self._parser.write(part)
        if not self.is_open or self._transport is None or self._transport.is_closing():
            raise Broken("the server takes no more of the request")
        if data:
            self._transport.write(data)
        if self._writable is not None:
            await self._writable

    async def _read_on(self) -> None:
        """Parse the bytes of the answer that have arrived. If none have arrived, first wait for some."""
        if self._parser.is_behind or self._arrived or not self.is_open:
            await asyncio.sleep(0)  # lets other tasks run, so that a server cannot occupy the loop
        else:
            await self.expect(self._loop.time() + self._read_s)
            self._deadline = NO_LIMIT_S  # no limit while the caller uses the piece
        if self._failure is not None:
            raise self._failure
        data = b""
        if not self._parser.is_behind:
            data, self._arrived = bytes(self._arrived), bytearray()
            if len(data) > _MOST_HELD and self.is_open and self._transport is not None:
                self._transport.resume_reading()
            elif not data and self._lost is not None:
                raise Broken("the connection was lost", self._lost)
            elif not data:
                self._parser.feed_eof()
        super().data_received(data)

    def _new_parser(self) -> H11Parser:
        return H11Parser(self, at_once=_EVENTS_AT_ONCE)

    def on_body(self, part: bytes) -> None:
        self._beside += _CHUNK
        super().on_body(part)

    def on_message_complete(self) -> None:
        self._is_asked = False
        self._deadline = self._loop.time() + MAX_IDLE_S
        if self._arrived or not self._parser.should_keep_alive():
            self.is_open = False

    def close(self, why: Broken) -> None:
        """Close the connection at once; a waiting or later read of the answer raises `why`."""
        self._failure = self._failure or why
        super().close(why)

    async def aclose(self) -> None:
        """Close the connection at once, even in the middle of an exchange."""
        self._failure = Broken("the request was given up")  # a new object: an earlier error has a traceback of its own
        self.close(self._failure)
        self._parser.close()

    # ── asyncio ──

    def data_received(self, data: bytes) -> None:
        if not self._is_asked:  # the base refuses it: otherwise it would answer the next request
            super().data_received(data)
            return
        was_full = len(self._arrived) > _MOST_HELD
        self._arrived += data
        if not was_full and len(self._arrived) > _MOST_HELD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = error
        if error is None:  # perhaps the regular end of the answer; the parser decides
            self._wake()
        if not self._is_asked:
            self._parser.close()
        super().connection_lost(error)

    def eof_received(self) -> None:  # closed by asyncio
        self.is_open = False
        self._wake()
        self.resume_writing()  # the server reads no more of the request

    def _wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _raise_as_httpx(error: BaseException) -> NoReturn:
    """Raise the httpx exception that corresponds to an error, or the error itself if httpx has no such exception."""
    cause = error.__cause__ if isinstance(error, Broken) else error
    if isinstance(cause, h11.ProtocolError):
        raise getattr(httpx, type(cause).__name__)(str(cause)) from error
    if isinstance(error, Late):
        raise httpx.ReadTimeout("") from error
    if not isinstance(error, Broken):
        raise error
    if isinstance(cause, OSError):  # an SSLError is one
        raise httpx.ReadError(str(cause)) from error
    raise httpx.RemoteProtocolError(str(error)) from error
