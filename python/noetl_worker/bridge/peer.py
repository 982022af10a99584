"""Connections to a server of upstream's feed, one after another. Each looks its name up again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import structlog

from noetl_worker.bridge.address import FeedAddress
from noetl_worker.errors import describe
from noetl_worker.models import backoff
from noetl_worker.observability.outage import Outage
from noetl_worker.process.lookups import OWN

_CONNECT_S: Final = 5.0
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Keepalive values with which a vanished peer is noticed after a minute."""
log = structlog.get_logger("noetl_worker.bridge")


class PeerSilent(OSError):
    """A peer that has not answered in time."""


class Peer:
    """A server that the bridge connects to.

    Args:
        what: the server's part, for the log.
    """

    def __init__(self, what: str, address: FeedAddress) -> None:
        self.what, self.address = what, address
        self.is_connected = False
        self._failures = 0
        self._outage = Outage()

    async def serve(self, session: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        """Connect and run `session`, again and again. A session ends with its connection."""
        while True:
            try:
                await self._once(session)
            except (OSError, UnicodeError, asyncio.IncompleteReadError, asyncio.TimeoutError, RuntimeError) as error:
                self._lost(describe(error))
            await asyncio.sleep(backoff.delay_s(self._failures, 0.25, 5.0, jitter=0.5))

    async def _once(self, session: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        host, port = self.address
        OWN.forget(host)

        async def opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_S)

        reader, writer = await OWN.connected(host, port, opened)
        keep_alive(writer.get_extra_info("socket"))
        self.is_connected = True
        try:
            await session(reader, writer)
        finally:
            self.is_connected = False
            writer.transport.abort()

    def works(self) -> None:
        """Note that the peer answers."""
        self._failures = 0
        if (line := self._outage.note_success()) is not None:
            log.info("bridge_peer_back", peer=self.what, address=str(self.address), **line)

    def _lost(self, error: str) -> None:
        self._failures += 1
        if (line := self._outage.note_failure(error)) is not None:
            log.warning(
                "bridge_peer_lost",
                peer=self.what,
                address=str(self.address),
                **line,
                advice="the bridge connects again; check that upstream's writer runs at this address",
            )


def keep_alive(connection: Any) -> None:
    """Have the system probe a silent peer.

    Args:
        connection: the socket of a transport, or None.
    """
    if connection is None:
        return
    with suppress(OSError):  # the connection is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
