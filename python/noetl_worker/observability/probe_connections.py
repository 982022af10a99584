"""The connections of the probe port: few, and none for long without an answer.

Whoever reaches the port shares the worker's file descriptors: 1,100 idle connections made every tool end in EMFILE.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MAX_CONNECTIONS", "ProbeConnection"]

MAX_CONNECTIONS: Final = 64
"""Above it the one that has gone longest without an answer makes room: a probe that asks at once is always heard."""


class ProbeConnection(H11Protocol):
    """One connection of the port; uvicorn makes them."""

    answered_within_s = 5.0
    """From its first moment, or its last answer, to the next answer: a probe and a scrape take milliseconds."""
    _turns = count()
    _turn = 0
    """Grows with each connection and answer: the clock of a loop can stand still for several of them."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_an_answer()
        if len(self.connections) > MAX_CONNECTIONS:
            others = (connection for connection in self.connections if isinstance(connection, ProbeConnection))
            min(others, key=lambda connection: connection._turn).drop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_an_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def drop(self) -> None:
        """End it without waiting for the other side: who does not read would hold it open."""
        self.connections.discard(self)  # it no longer counts; asyncio closes it in its next turn
        self.transport.abort()

    def _wait_for_an_answer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._turn = next(self._turns)
        self._deadline = self.loop.call_later(self.answered_within_s, self.drop)
