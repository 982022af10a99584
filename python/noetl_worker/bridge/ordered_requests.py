"""Client for servers of upstream's command feed that answer in order. It sends requests without awaiting answers.

The bridge uses it to acknowledge command records, and to forward records to upstream's writer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from noetl_worker.bridge.peer import Peer, PeerSilent

ANSWER_S: Final = 10.0
"""Seconds without an answer to a request after which the connection is closed and opened again."""


class OrderedRequests:
    """Client that sends requests on one connection without waiting for each answer.

    If the connection ends, unanswered requests are sent again on the next connection.

    Args:
        read_answer: reads one answer. Raises NotARecord for invalid data.
    """

    def __init__(self, peer: Peer, read_answer: Callable[[asyncio.StreamReader], Awaitable[object]]) -> None:
        self._peer, self._read_answer = peer, read_answer
        self._unanswered: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._waits_since = 0.0
        """Monotonic time since when the next answer is awaited. If that takes over ANSWER_S, the connection is opened
        again."""
        self._writer: asyncio.StreamWriter | None = None
        self._answered = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        return bool(self._unanswered)

    def put(self, request: bytes, on_answered: Callable[[], None] = lambda: None) -> None:
        """Send a request, and call `on_answered` once the peer has answered it.

        The request is sent again on each new connection until then.
        """
        if not self._unanswered:
            self._waits_since = time.monotonic()
        self._unanswered.append((request, on_answered))
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(request)

    async def answered(self) -> None:
        """Wait until the peer has answered every request."""
        while self._unanswered:
            self._answered.clear()
            await self._answered.wait()

    async def run(self) -> None:
        """Keep a connection to the peer open, send the requests and read the answers, until cancelled."""
        await self._peer.serve(self._session)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request, _ in self._unanswered:
            writer.write(request)
        self._writer, self._waits_since = writer, time.monotonic()
        try:
            while True:
                await self._take_answer(reader)
        finally:
            self._writer = None

    async def _take_answer(self, reader: asyncio.StreamReader) -> None:
        reading = asyncio.ensure_future(self._read_answer(reader))
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=ANSWER_S / 4)
                if not reading.done() and self._unanswered and time.monotonic() - self._waits_since > ANSWER_S:
                    raise PeerSilent(f"no answer for {ANSWER_S:g} s")
            reading.result()
        finally:
            reading.cancel()
        if not self._unanswered:
            raise PeerSilent("the server sent an answer to which there was no request")
        _, on_answered = self._unanswered.popleft()
        self._waits_since = time.monotonic()
        self._answered.set()
        on_answered()
        self._peer.works()
