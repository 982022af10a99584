"""Parser of HTTP answers made with the library h11, with the interface of httptools' parser. Used by tools, and for
planes where httptools is not installed. Tools also encode their requests with this parser."""

from __future__ import annotations

from typing import Final, TypeAlias

import h11

from noetl_worker.remote.transport.connection import HttpConnection
from noetl_worker.remote.transport.transport import Response

_Reader: TypeAlias = HttpConnection[Response] | HttpConnection[None]
_ANY_REQUEST: Final = h11.Request(method="GET", target="/", headers=[("host", "any")])
"""Placeholder for a request to a plane. h11 reads an answer only after a request, but the worker writes requests to a
plane without h11."""
_LONGEST_HEAD: Final = 100 * 1024


class H11Parser:
    """Parser of the successive answers on one connection. Interim answers (`100 Continue`) are skipped.

    Args:
        reader: connection whose callbacks receive the parsed answers.
        at_once: number of events (pieces of an answer) after which `feed_data` stops and sets `is_behind`. None: no
            limit.
    """

    def __init__(self, reader: _Reader, at_once: int | None = None) -> None:
        self._reader: _Reader | None = reader
        self._at_once = at_once
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self.head: h11.Response | h11.InformationalResponse | None = None
        """Head of the last answer, or None. After a 101 answer the connection uses another protocol, which this parser
        does not read."""
        self._is_asked = False
        """True from the start of a request to the end of its answer. On a connection to a plane, the flag becomes True
        only with the first bytes of the answer, because the worker writes requests to a plane without this parser."""
        self.is_behind = False
        """True if `feed_data` stopped before the end of its data. `feed_data(b"")` then reads the remaining data."""

    def write(self, part: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        """Return the bytes to send for the next part of a request: head, data or end. Raises h11.LocalProtocolError if
        the part is not allowed now."""
        if not self._is_asked:
            self._start()
        return self._state.send(part) or b""

    def _start(self) -> None:
        self._is_asked = True
        if self.head is not None:
            self._state.start_next_cycle()

    def get_status_code(self) -> int:
        return 0 if self.head is None else self.head.status_code

    def should_keep_alive(self) -> bool:
        """Return whether another request may follow: both sides are done, and no data came after the answer."""
        state = self._state
        return state.our_state is h11.DONE and state.their_state is h11.DONE and not state.trailing_data[0]

    def feed_data(self, data: bytes) -> None:
        """Parse the next bytes from the server. Raises h11.RemoteProtocolError if the bytes are not HTTP."""
        if data:
            if not self._is_asked:
                self._start()
                self._state.send(_ANY_REQUEST)
                self._state.send(h11.EndOfMessage())
            self._state.receive_data(data)
        count = 0
        self.is_behind = False
        while self._read_event():
            count += 1
            if count == self._at_once:
                self.is_behind = True
                return

    def feed_eof(self) -> None:
        """Tell the parser that the server has closed its side. The next `feed_data(b"")` ends the answer, or raises an
        error if the answer is incomplete."""
        if self._state.their_state is h11.SEND_RESPONSE:
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        self._state.receive_data(b"")

    def _read_event(self) -> bool:
        """Read one event of the answer. Return False if the received bytes contain no further event."""
        event, reader = self._state.next_event(), self._reader
        assert reader is not None
        if isinstance(event, h11.Data):
            reader.on_body(event.data)
            return True
        if isinstance(event, h11.EndOfMessage):
            self._is_asked = False
            reader.on_message_complete()
            return False
        if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            return True
        if not isinstance(event, (h11.Response, h11.InformationalResponse)):
            return False
        self.head = event
        for name, value in event.headers.raw_items():
            reader.on_header(name, value)
        reader.on_headers_complete()
        if event.status_code == 101:
            reader.on_message_complete()
        return True

    def close(self) -> None:
        """Drop the reference to the reader, which refers to this parser. Without this reference cycle Python frees both
        objects at once."""
        self._reader = None
