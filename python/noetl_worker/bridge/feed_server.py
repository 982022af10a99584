"""TCP server to which control planes without NATS send their command records.

It speaks the publish protocol of upstream's command feed, and acknowledges each stored record with eight bytes. The
protocol has no login, so anybody who reaches the port can send records. But a worker claims each command from the
control plane first. So only commands that the plane knows can run.
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
from noetl_worker.bridge.frames import read_frame
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
    "look at `error`, and find out who connects from this address: only a control plane whose "
    "NOETL_COMMAND_BUS_WRITER_ADDRS names this bridge should connect"
)
log = structlog.get_logger("noetl_worker.bridge")


class FeedServer:
    """Server that takes command records from control planes, on at most MOST_CONNECTIONS connections.

    Args:
        deliver: sends a record to JetStream or upstream's writer.
        refusal: returns the reason why a record must be refused, or None to accept it.
    """

    def __init__(
        self, held: HeldRecords, deliver: Callable[[HeldRecord], None], refusal: Callable[[FeedRecord], str | None]
    ) -> None:
        self._held, self._deliver, self._refusal = held, deliver, refusal
        self._connections: dict[FeedConnection, None] = {}
        self._is_stopping = False
        self.port = 0
        self._refused: dict[str, Outage] = {}
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen for control planes. Raise SettingsError if another program uses the address."""
        try:
            listening = listening_at(host, port)  # a loop's own look-up of the address starts threads
            self._server = await asyncio.start_server(self._connected, sock=listening, backlog=MOST_CONNECTIONS)
        except OSError as error:
            raise SettingsError("--publish", f"{host}:{port}", f"give a free address ({error})") from error
        self.port = listening.getsockname()[1]
        log.info("bridge_listening", host=host, port=self.port)

    def stop(self) -> None:
        """Take no more connections and records. Records already received are still acknowledged."""
        self._is_stopping = True
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.reading.cancel()

    async def close(self) -> None:
        """Close all connections. Acknowledgements that are already in the write buffers are still sent."""
        for connection in list(self._connections):
            self._end(connection)
        if self._server is not None:
            self._server.close()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 1.0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start to read records from a new connection.

        If MOST_CONNECTIONS are open, the connection that has been idle longest is closed first. If no connection is
        idle, the new connection is refused.
        """
        keep_alive(writer)
        if self._is_stopping:
            writer.close()
            return
        if len(self._connections) >= MOST_CONNECTIONS:
            idle = [connection for connection in self._connections if connection.is_idle]
            if not idle:
                self._count_refused(writer, f"more than {MOST_CONNECTIONS} connections")
                writer.close()
                return
            self._end(min(idle, key=lambda connection: connection.last_record_s))
        connection = FeedConnection(writer)
        connection.reading = asyncio.ensure_future(self._read(connection, reader))
        self._connections[connection] = None
        metrics.CONNECTIONS.set(len(self._connections))

    async def _read(self, connection: FeedConnection, reader: asyncio.StreamReader) -> None:
        """Take records from a connection until it ends or sends invalid data, then close it.

        When the server stops, the connection stays open so that acknowledgements can still be sent.
        """
        try:
            while True:
                record = read_record(await read_frame(reader))
                connection.last_record_s = time.monotonic()
                if (reason := self._refusal(record)) is not None:
                    raise NotARecord(reason)
                await self._held.wait_for_room()
                self._deliver(connection.hold(self._held, record))
                await connection.writer.drain()
        except NotARecord as error:
            self._count_refused(connection.writer, str(error))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the publisher has left: it sends unacknowledged records again
        finally:
            if not self._is_stopping:
                self._end(connection)

    def _end(self, connection: FeedConnection) -> None:
        """Close a connection once all data written to it have been sent."""
        self._connections.pop(connection, None)
        metrics.CONNECTIONS.set(len(self._connections))
        connection.reading.cancel()
        connection.writer.close()

    def _count_refused(self, writer: asyncio.StreamWriter, reason: str) -> None:
        """Count and log a connection that is closed because of invalid data or too many connections.

        Repeated refusals of one peer are logged at most once a minute.
        """
        metrics.REFUSED.inc()
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        if peer not in self._refused and len(self._refused) >= _MOST_PEERS:
            del self._refused[next(iter(self._refused))]
        if (line := self._refused.setdefault(peer, Outage()).note_failure(reason)) is not None:
            log.warning("bridge_connection_refused", peer=peer, **line, advice=_REFUSED_ADVICE)


class FeedConnection:
    """Connection on which a control plane publishes command records. They are acknowledged in the order of arrival."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.reading: asyncio.Future[None]
        """Task that takes the records of this connection."""
        self.last_record_s = time.monotonic()
        self._awaiting: deque[HeldRecord] = deque()

    @property
    def is_idle(self) -> bool:
        """True if no command record of this connection waits for an acknowledgement."""
        return not self._awaiting

    def hold(self, held_records: HeldRecords, record: FeedRecord) -> HeldRecord:
        """Keep a command record until JetStream or upstream's writer has it. Then acknowledge it to its sender."""
        held = held_records.take(record, self._acknowledge)
        self._awaiting.append(held)
        return held

    def _acknowledge(self) -> None:
        ready = bytearray()
        while self._awaiting and self._awaiting[0].is_passed_on:
            ready += self._awaiting.popleft().record.sequence.to_bytes(_ACK_BYTES, "big")
        if ready and not self.writer.transport.is_closing():
            self.writer.write(bytes(ready))
