"""h11 with the calls of httptools' response parser: for pure installs, and for tools, which write requests with it."""

from __future__ import annotations

from typing import Final, TypeAlias

import h11

from noetl_worker.remote.transport.connection import HttpConnection
from noetl_worker.remote.transport.transport import Response

_Reader: TypeAlias = HttpConnection[Response] | HttpConnection[None]
_ANY_REQUEST: Final = h11.Request(method="GET", target="/", headers=[("host", "any")])
"""h11 reads an answer to a request that it has seen. Which one is the same to it, for all that a plane is sent."""
_LONGEST_HEAD: Final = 100 * 1024


class H11Parser:
    """Reads answers one after the other. Interim answers are left out.

    Args:
        reader: receives what is read.
        at_once: pieces and interim answers that one call of `feed_data` reads at most; then `is_behind`.
    """

    def __init__(self, reader: _Reader, at_once: int | None = None) -> None:
        self._reader: _Reader | None = reader
        self._at_once = at_once
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self.head: h11.Response | h11.InformationalResponse | None = None
        """Head of the last answer. An informational one (101) switches to a protocol that is not read here."""
        self._is_asked = False
        """True from a request to the end of its answer; nobody writes those to a plane with h11."""
        self.is_behind = False
        """True after `feed_data` stopped before the end of its data; fed with nothing, it goes on."""

    def write(self, part: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        """Return the bytes of a request's next part. Raises h11.LocalProtocolError."""
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
        """Return whether another request may follow: both sides are done and agree, and nothing came behind."""
        state = self._state
        return state.our_state is h11.DONE and state.their_state is h11.DONE and not state.trailing_data[0]

    def feed_data(self, data: bytes) -> None:
        """Read the next bytes. Raises h11.RemoteProtocolError for what is no HTTP."""
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
        """Note that no byte comes any more; the next `feed_data`, with nothing, reads what this means."""
        if self._state.their_state is h11.SEND_RESPONSE:
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        self._state.receive_data(b"")

    def _read_event(self) -> bool:
        """Read one event; False: there is none more in what was received."""
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
        """Let go of the reader, which has this object: without a cycle both are freed at once."""
        self._reader = None
