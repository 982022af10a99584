"""The client of nats-py whose `flush` and `drain` mean what they say."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client as LibraryClient

__all__ = ["Client"]


class Client(LibraryClient):
    """As the library's; a PING goes behind what was sent before it.

    nats-py (2.14 to 2.16) writes its PING at once, past the commands that wait for its flusher. So `flush` returned
    before the server had read a publish, and did not report its refusal; and `drain` of a subscription returned before
    the server had read the UNSUB, and threw away what it delivered in between: a command, until ack_wait was over (of
    800 drains that met a delivery 48 lost it; in this order 2, in a window that is the server's own).
    tests/integration/test_connection.py reads the order off the wire.
    """

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        if self.is_connected and self._transport is not None and self._pending_data_size > 0:
            self._transport.writelines(self._pending)  # as the flusher does it, which then finds nothing
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)
