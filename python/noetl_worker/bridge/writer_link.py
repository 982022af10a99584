"""Passes the system pool's records on to upstream's writer, and notes when the writer has them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from noetl_worker.bridge import metrics
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.frames import framed
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.bridge.peer import Peer, PeerSilent

ANSWER_S: Final = 10.0
"""Silence after which the connection to the writer is opened again."""
_ACK_BYTES: Final = 8


class WriterLink:
    """The connection to the writer, which answers in the order of the frames, with numbers of its own."""

    def __init__(self, address: FeedAddress, held: HeldRecords) -> None:
        self.peer: Final = Peer("writer", address)
        self._held = held
        self._unanswered: deque[HeldRecord] = deque()
        self._writer: asyncio.StreamWriter | None = None

    def put(self, held: HeldRecord) -> None:
        """Send a record until the writer has it."""
        self._unanswered.append(held)
        if self._writer is not None:
            self._send(held, self._writer)

    async def run(self) -> None:
        """Keep the connection open until cancelled."""
        await self.peer.serve(self._session)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for held in self._unanswered:
            self._send(held, writer)
        self._writer = writer
        try:
            while True:
                await self._answer(reader)
        finally:
            self._writer = None

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        reading = asyncio.ensure_future(reader.readexactly(_ACK_BYTES))
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=ANSWER_S / 4)
                if not reading.done() and self._is_silent():
                    raise PeerSilent(f"no answer for {ANSWER_S:g} s")
            reading.result()
        finally:
            reading.cancel()
        if not self._unanswered:
            raise PeerSilent("an answer to nothing")
        self._held.keep(self._unanswered.popleft(), metrics.FORWARDED)
        self.peer.works()

    def _is_silent(self) -> bool:
        return bool(self._unanswered) and time.monotonic() - self._unanswered[0].sent_s > ANSWER_S

    def _send(self, held: HeldRecord, writer: asyncio.StreamWriter) -> None:
        held.sent_s = time.monotonic()
        if not writer.transport.is_closing():
            writer.write(framed(held.record.body))
