"""An asyncio connection with httpcore's interface for reading and writing.

anyio's, which httpcore takes, makes a cancel scope and one or two more turns of the loop at each read and write: 50 µs
of a request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, Final, cast

import anyio
import httpcore

_MOST_HELD: Final = 1 << 16
"""Most bytes held that nobody has read; beyond it the server has to wait."""
_DAY_S: Final = 86_400.0
"""Handshake limit that leaves the deadline to the exchange; asyncio's own would be one minute."""


class TcpStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection, TLS too. Used by one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._is_over = False
        """No more data comes: the server closed the connection, or it was lost."""
        self._error: Exception | None = None
        """Why the connection was lost."""
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        """Set while the server reads more slowly than we write."""

    # ── httpcore ──

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._pieces:
            await asyncio.sleep(0)  # a server that floods its client has no more than its turn
        elif not self._is_over:
            self._arrival = asyncio.get_running_loop().create_future()
            if not await _is_done(self._arrival, timeout):
                raise httpcore.ReadTimeout
        if not self._pieces:
            if self._error is not None:
                raise httpcore.ReadError(str(self._error)) from self._error
            return b""
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        was_full = self._held > _MOST_HELD
        self._held -= len(piece)
        if was_full and self._held <= _MOST_HELD and self._transport is not None and not self._is_over:
            self._transport.resume_reading()
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if self._transport is None or self._is_over or self._transport.is_closing():
            raise self._not_written()
        self._transport.write(buffer)
        if self._room is not None:
            if not await _is_done(self._room, timeout):
                raise httpcore.WriteTimeout
            if self._is_over:
                raise self._not_written()

    def _not_written(self) -> httpcore.WriteError:
        error = httpcore.WriteError(f"the connection was closed{f': {self._error}' if self._error else ''}")
        error.__cause__ = self._error
        return error

    async def aclose(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()  # all that was to be said is said; who waits for a goodbye may wait for long

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        assert self._transport is not None
        await self._require_untouched("TLS")
        started = asyncio.get_running_loop().start_tls(
            self._transport, self, ssl_context, server_hostname=server_hostname, ssl_handshake_timeout=_DAY_S
        )
        transport: asyncio.Transport | None = None
        try:
            with anyio.fail_after(timeout):
                transport = await started
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no TLS connection after {timeout} seconds") from error
        except OSError as error:  # an SSLError is one
            raise httpcore.ConnectError(str(error) or type(error).__name__) from error
        finally:
            if transport is None:
                await self.aclose()
        self._transport = transport
        await self._require_untouched("its first request")
        return self

    async def _require_untouched(self, before: str) -> None:
        """Raise an error if data arrived before TLS: it would be taken for an answer under TLS."""
        if self._pieces or self._is_over:
            await self.aclose()
            did = "spoke" if self._pieces else "closed"
            raise httpcore.ConnectError(f"the server {did} before {before}")

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # true if an idle connection was closed or sent data
            return self._is_over or bool(self._pieces)
        return None if self._transport is None else self._transport.get_extra_info(info)

    # ── asyncio ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        was_full = self._held > _MOST_HELD
        self._pieces.append(data)
        self._held += len(data)
        if not was_full and self._held > _MOST_HELD and self._transport is not None:
            self._transport.pause_reading()
        _wake(self._arrival)

    def eof_received(self) -> bool:
        self._is_over = True
        _wake(self._arrival)
        _wake(self._room)  # who has answered already reads no more of the request
        return False  # closed by asyncio

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over, self._error = True, error
        _wake(self._arrival)
        _wake(self._room)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        _wake(room)


async def _is_done(one: asyncio.Future[None], timeout: float | None) -> bool:
    if timeout is None:
        await one
        return True
    return bool((await asyncio.wait((one,), timeout=timeout))[0])


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
