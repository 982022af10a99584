"""One HTTP/1.1 connection: h11 encodes the request and parses the bytes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

import h11
import httpcore
import httpx

KEPT_S: Final = 5.0
"""Longest idle time of a connection before it is closed."""
_LONGEST_HEAD: Final = 100 << 10
_READ_AT_ONCE: Final = 1 << 16
_MOST_BESIDE: Final = 1 << 17
"""Most bytes of an answer that are not content: heads, trailers, and chunk framing beyond a byte per byte of content. A
chunk counts 16 more, for its reading time."""
_CHUNK: Final = 16
_EVENTS_AT_ONCE: Final = 64
"""Chunks read in a row before other tasks get a turn."""


class HttpConnection:
    """One exchange at a time: `ask`, the pieces of the answer, `reset`. Any error closes the connection.

    Raises:
        httpx.TransportError: of the network, and of what is no HTTP/1.1.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self.stream = stream
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._timeouts: Mapping[str, float | None] = {}
        self._idle_since_s = 0.0
        self._beside = 0
        self._events = 0

    async def ask(self, request: httpx.Request) -> h11.Response | h11.InformationalResponse:
        """Send a request; return the answer's head. An informational one (101) switches to a protocol not read here."""
        self._timeouts, self._beside = request.extensions.get("timeout", {}), 0
        try:
            with suppress(httpcore.WriteError):  # a server may answer before it has read all
                await self._write(request)
            while True:
                event = await self._next_event()
                if isinstance(event, h11.Response):
                    return event
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    return event
        except BaseException as error:
            await self.aclose()
            raise_as_httpx(error)

    async def _write(self, request: httpx.Request) -> None:
        head = h11.Request(method=request.method.encode(), target=request.url.raw_path, headers=request.headers.raw)
        await self._send(head)  # before a body is waited for: it is now that the connection was looked at
        stream = request.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async for piece in stream:
            if piece:  # httpx sends an empty piece if there is no body
                await self._send(h11.Data(data=piece))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        await self.stream.write(self._state.send(event) or b"", self._timeouts.get("write"))

    async def next_piece(self) -> bytes | None:
        """Read the next piece of the answer's body; None at its end."""
        try:
            event = await self._next_event()
        except BaseException as error:
            await self.aclose()
            raise_as_httpx(error)
        if not isinstance(event, h11.Data):
            return None
        self._events += 1
        if self._events > _EVENTS_AT_ONCE:
            self._events = 0
            await asyncio.sleep(0)
        self._beside = max(0, self._beside + _CHUNK - 2 * len(event.data))
        return bytes(event.data)

    async def _next_event(self) -> object:
        state = self._state
        if self._beside > _MOST_BESIDE:
            raise h11.RemoteProtocolError(f"what the answer has beside its content is over {_MOST_BESIDE} bytes")
        while (event := state.next_event()) is h11.NEED_DATA:
            self._events = 0
            data = await self.stream.read(_READ_AT_ONCE, self._timeouts.get("read"))
            if not data and state.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError("Server disconnected without sending a response.")
            self._beside += len(data)
            state.receive_data(data)
        return event

    def reset(self) -> bool:
        """Prepare for another request. Return False unless the answer was read to its end and nothing follows it."""
        state = self._state
        has_more = state.trailing_data[0]  # would be taken for the next request's answer
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE or has_more:
            return False
        state.start_next_cycle()
        self._idle_since_s = asyncio.get_running_loop().time()
        return True

    def is_usable(self) -> bool:
        """Return True if an idle connection is not too old and the server has neither sent data nor closed it."""
        is_kept = asyncio.get_running_loop().time() <= self._idle_since_s + KEPT_S
        return is_kept and not self.stream.get_extra_info("is_readable")

    async def aclose(self) -> None:
        await self.stream.aclose()


def raise_as_httpx(error: BaseException) -> NoReturn:
    """Raise errors of h11 and httpcore's streams as their httpx errors, and others unchanged."""
    if not isinstance(error, (httpcore.TimeoutException, httpcore.NetworkError, h11.ProtocolError)):
        raise error
    raise getattr(httpx, type(error).__name__)(str(error)) from error
