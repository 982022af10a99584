"""A TCP proxy that breaks on demand: in front of nats-server, or of the control plane (PlaneSettings.public_url)."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Final

HOST: Final = "127.0.0.1"
_CHUNK: Final = 65_536
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Way(Enum):
    UP = "client to server"
    DOWN = "server to client"


class Proxy:
    """`async with Proxy(server_port) as proxy:` forwards `proxy.port` to it until the block ends.

    The faults last until `heal`: `hold` (bytes wait, as in a network that loses every packet), `drop` (bytes are gone;
    heal resets, since TCP never loses bytes of a connection that lives). `reset` and `say` happen once to what is
    connected.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port: Final = server_port
        self.port = 0
        self.dropped = {way: bytearray() for way in Way}
        self._open = {way: asyncio.Event() for way in Way}
        self._dropped: set[Way] = set()
        self._writers: dict[asyncio.StreamWriter, Way] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        for gate in self._open.values():
            gate.set()

    # ── faults ──

    def hold(self, *ways: Way) -> None:
        """A black hole: nothing gets through, nothing is refused, no connection ends. No way named: both."""
        for way in ways or Way:
            self._open[way].clear()

    def drop(self, way: Way) -> None:
        self._dropped.add(way)

    def reset(self) -> None:
        """RST to both ends of every connection."""
        for writer in list(self._writers):
            connection = writer.get_extra_info("socket")
            with suppress(OSError):  # the other end was quicker
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    def say(self, way: Way, data: bytes) -> None:
        """Bytes that the other end never sent; for a moment at which nothing else is on its way."""
        for writer, its_way in self._writers.items():
            if its_way is way:
                writer.write(data)

    def heal(self) -> None:
        lost = bool(self._dropped)
        self._dropped.clear()
        for gate in self._open.values():
            gate.set()
        if lost:
            self.reset()

    # ── forwarding ──

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self.server_port)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, up_writer, Way.UP)),
            asyncio.create_task(self._pump(up_reader, writer, Way.DOWN)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps)
        self._tasks.difference_update(pumps)
        for one in (writer, up_writer):
            one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        self._writers[writer] = way
        try:
            while data := await reader.read(_CHUNK):
                await self._open[way].wait()
                if way in self._dropped:
                    self.dropped[way] += data
                    continue
                writer.write(data)
                await writer.drain()
            await self._open[way].wait()
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()
        except OSError:
            writer.transport.abort()  # one end is gone, so is the other
        finally:
            del self._writers[writer]

    # ── life ──

    async def __aenter__(self) -> Proxy:
        self._listener = await asyncio.start_server(self._connected, HOST, 0)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
