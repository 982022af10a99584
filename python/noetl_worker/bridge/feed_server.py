"""The publish interface of upstream's feed: control planes connect, and get eight bytes for each record that is stored.

The feed has no login. Anybody who reaches the port can have commands run, but only commands that the control plane
knows, because a worker claims each record's command.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from noetl_worker.bridge import metrics
from noetl_worker.bridge.frames import FrameReader, FrameTooLarge
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.bridge.peer import keep_alive
from noetl_worker.bridge.record import FeedRecord, NotARecord, read_record
from noetl_worker.errors import SettingsError
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probe_server import listening_at

MOST_CONNECTIONS: Final = 64
_ACK_BYTES: Final = 8
_MOST_PEERS: Final = 64
_REFUSED_ADVICE: Final = (
    "only the control plane's NOETL_COMMAND_BUS_WRITER_ADDRS may name this address: find out who else connects"
)
log = structlog.get_logger("noetl_worker.bridge")


class FeedServer:
    """Takes records from any number of publishers.

    Args:
        deliver: passes a held record on.
        refusal: returns why a record cannot be taken, or None.
    """

    def __init__(
        self, held: HeldRecords, deliver: Callable[[HeldRecord], None], refusal: Callable[[FeedRecord], str | None]
    ) -> None:
        self.held, self.deliver, self.refusal = held, deliver, refusal
        self.connections: Final[dict[FeedConnection, None]] = {}
        self.is_stopping = False
        self.port = 0
        self._refused: dict[str, Outage] = {}
        self._server: asyncio.Server | None = None
        held.on_room.append(self._go_on)

    async def open(self, host: str, port: int) -> None:
        """Listen. Raise SettingsError if the address is taken."""
        try:
            listening = listening_at(host, port)  # a loop's own look-up of the address starts threads
            self._server = await asyncio.get_running_loop().create_server(
                lambda: FeedConnection(self), sock=listening, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            raise SettingsError("--publish", f"{host}:{port}", f"a free address ({error})") from error
        self.port = listening.getsockname()[1]
        log.info("bridge_listening", host=host, port=self.port)

    def stop(self) -> None:
        """Take no more connections and records. Held records are still acknowledged."""
        self.is_stopping = True
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.pause_reading()

    async def close(self) -> None:
        """Close the connections after their written acknowledgements."""
        for connection in list(self.connections):
            connection.end()
        if self._server is not None:
            self._server.close()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 1.0)

    def _go_on(self) -> None:
        for connection in list(self.connections):
            connection.resume_reading()

    def admit(self, connection: FeedConnection) -> str | None:
        """Admit a new connection, or return why not. If there are too many, the one silent for longest is closed."""
        if len(self.connections) >= MOST_CONNECTIONS:
            idle = [other for other in self.connections if other.is_idle]
            if not idle:
                return f"more than {MOST_CONNECTIONS} connections"
            min(idle, key=lambda other: other.heard_s).end()
        self.connections[connection] = None
        metrics.CONNECTIONS.set(len(self.connections))
        return None

    def forget(self, connection: FeedConnection) -> None:
        """Remove a closed connection."""
        self.connections.pop(connection, None)
        metrics.CONNECTIONS.set(len(self.connections))

    def count_refused(self, peer: str, reason: str) -> None:
        """Count a connection closed for the data it sent. Each peer gives one log line a minute."""
        metrics.REFUSED.inc()
        if peer not in self._refused and len(self._refused) >= _MOST_PEERS:
            del self._refused[next(iter(self._refused))]
        if (line := self._refused.setdefault(peer, Outage()).note_failure(reason)) is not None:
            log.warning("bridge_connection_refused", peer=peer, **line, advice=_REFUSED_ADVICE)


class FeedConnection(asyncio.Protocol):
    """A publisher. Acknowledgements are sent in the order of its frames."""

    def __init__(self, server: FeedServer) -> None:
        self._server = server
        self._frames = FrameReader()
        self._awaiting: deque[HeldRecord] = deque()
        self._is_reading = True
        self._can_write = True
        self._peer = ""
        self.heard_s = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """True if no record of this publisher waits for an acknowledgement."""
        return not self._awaiting

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        keep_alive(transport.get_extra_info("socket"))
        if (reason := self._server.admit(self)) is not None:
            self._refuse(reason)
        elif self._server.is_stopping:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        self._frames.feed(data)
        self._take_records()

    def connection_lost(self, exc: Exception | None) -> None:
        self._awaiting.clear()  # held records are published all the same; the publisher sends them again
        self._server.forget(self)

    def pause_writing(self) -> None:
        self._can_write = False
        self.pause_reading()

    def resume_writing(self) -> None:
        self._can_write = True
        self.resume_reading()

    def pause_reading(self) -> None:
        """Pause reading."""
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading, after the bytes that are here already."""
        if self._transport.is_closing() or self._server.is_stopping or not self._can_write:
            return
        self._take_records()
        if not self._is_reading and not self._server.held.is_full and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def end(self) -> None:
        """Close the connection after everything written to it."""
        self._server.forget(self)
        self._transport.close()

    def _take_records(self) -> None:
        try:
            while not self._server.held.is_full and not self._server.is_stopping:
                if (body := self._frames.next()) is None:
                    return
                record = read_record(body)
                if (reason := self._server.refusal(record)) is not None:
                    raise NotARecord(reason)
                held = self._server.held.take(record, self._acknowledge)
                self._awaiting.append(held)
                self._server.deliver(held)
        except (FrameTooLarge, NotARecord) as error:
            self._refuse(str(error))
            return
        self.pause_reading()

    def _refuse(self, reason: str) -> None:
        self._server.count_refused(self._peer, reason)
        self.end()

    def _acknowledge(self) -> None:
        ready = bytearray()
        while self._awaiting and self._awaiting[0].is_kept:
            ready += self._awaiting.popleft().record.sequence.to_bytes(_ACK_BYTES, "big")
        if ready and not self._transport.is_closing():
            self._transport.write(bytes(ready))
