"""Connection from the bridge to a server of upstream's command feed. Whenever the connection ends, it is opened again.

The server's host name is resolved again for each connection, since its address may have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.record import NotARecord
from noetl_worker.errors import describe
from noetl_worker.models import backoff
from noetl_worker.observability.outage import Outage
from noetl_worker.process.lookups import OWN
from noetl_worker.remote.transport.transport import SOCKET_OPTIONS

_CONNECT_S: Final = 5.0
_ENDS: Final = (
    OSError,
    UnicodeError,
    RuntimeError,
    asyncio.IncompleteReadError,
    asyncio.TimeoutError,
    NotARecord,
)
"""Errors after which the bridge connects again. Resolving a host name may raise UnicodeError and RuntimeError."""
log = structlog.get_logger("noetl_worker.bridge")


class PeerSilent(OSError):
    """Error for a server that sent nothing within the time limit, or sent an answer to which there was no request."""


class Peer:
    """A server of upstream's command feed to which the bridge connects, again after each failure.

    Args:
        what: role of the server, for the log.
    """

    def __init__(self, what: str, address: FeedAddress) -> None:
        self.what, self.address = what, address
        self._failures = 0
        self._outage = Outage()

    async def serve(self, session: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        """Connect and run `session` on the connection. Whenever the connection ends, connect again, until cancelled."""
        while True:
            try:
                await self._once(session)
            except _ENDS as error:
                self._lost(describe(error))
            await asyncio.sleep(backoff.delay_s(self._failures, 0.25, 5.0, jitter=0.5))

    async def _once(self, session: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        host, port = self.address
        OWN.forget(host)

        async def opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_S)

        reader, writer = await OWN.connected(host, port, opened)
        keep_alive(writer)
        try:
            await session(reader, writer)
        finally:
            writer.transport.abort()

    def works(self) -> None:
        """Note that the peer has answered. Reset the delay before a reconnect, and log the end of an outage, if any."""
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
                advice="check that upstream's feed runs at this address; the bridge connects again by itself",
            )


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Turn on TCP keep-alive for a connection, so that the bridge notices a peer that has vanished."""
    with suppress(OSError):  # the connection is closed already
        for option in SOCKET_OPTIONS:
            writer.get_extra_info("socket").setsockopt(*option)
