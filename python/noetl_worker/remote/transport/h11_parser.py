"""h11 with the calls of httptools' response parser: what a pure install reads answers with."""

from __future__ import annotations

from typing import Final, Protocol

import h11

_ANY_REQUEST: Final = h11.Request(method="GET", target="/", headers=[("host", "any")])
"""h11 reads an answer to a request that it has seen. Which one is the same to it, for all that is sent here."""


class AnswerReader(Protocol):
    """What a parser calls; the names are httptools'."""

    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, part: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class H11ResponseParser:
    """Reads answers one after the other. `feed_data` raises h11.RemoteProtocolError for what is no HTTP."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._status = 0
        self._is_kept = False
        self._connection = h11.Connection(h11.CLIENT)
        self._ask()

    def _ask(self) -> None:
        self._connection.send(_ANY_REQUEST)
        self._connection.send(h11.EndOfMessage())

    def get_status_code(self) -> int:
        return self._status

    def should_keep_alive(self) -> bool:
        """Of the answer that is being read, once its head is complete."""
        return self._is_kept

    def feed_data(self, data: bytes) -> None:
        self._connection.receive_data(bytes(data))
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, (h11.InformationalResponse, h11.Response)):
                self._read_head(event)
            elif isinstance(event, h11.Data):
                self._reader.on_body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._reader.on_message_complete()
                if self._connection.their_state is not h11.DONE:
                    return
                self._connection.start_next_cycle()
                self._ask()

    def _read_head(self, head: h11.InformationalResponse | h11.Response) -> None:
        self._status = head.status_code
        for name, value in head.headers:
            self._reader.on_header(name, value)
        self._is_kept = self._connection.their_state is not h11.MUST_CLOSE and self._connection.our_state is h11.DONE
        self._reader.on_headers_complete()
        if isinstance(head, h11.InformationalResponse):
            self._reader.on_message_complete()
