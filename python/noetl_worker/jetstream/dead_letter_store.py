"""The stream that keeps dead letters: made at the first letter, never expiring by itself."""

from __future__ import annotations

import asyncio
from typing import Final

import nats
import structlog
from nats.js.api import StreamConfig

from noetl_worker.errors import JetStreamError
from noetl_worker.jetstream.connection import Connection

__all__ = ["DEAD_LETTER_STREAM", "DeadLetterStore"]

DEAD_LETTER_STREAM: Final = "NOETL_DEAD_LETTERS"
_MAX_BYTES: Final = 256 * 1024 * 1024
log = structlog.get_logger("noetl_worker.jetstream")


class DeadLetterStore:
    """Publishes into the stream that owns `subject`, making it when there is none."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._made = False
        self._lock = asyncio.Lock()

    async def publish(self, subject: str, data: bytes) -> None:
        """Store one letter; returns when the server has it.

        Raises:
            JetStreamError: it is not stored.
        """
        try:
            async with self._lock:
                await self._ensure()
            await self._connection.client.jetstream().publish(subject, data, timeout=5)
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            self._made = False  # the stream may have been deleted: look again next time
            raise JetStreamError(f"dead letter not stored on {subject}: {error!r}") from error

    async def _ensure(self) -> None:
        if self._made:
            return
        manager = self._connection.client.jsm()
        try:
            await manager.find_stream_name_by_subject(self._subject)
        except nats.js.errors.NotFoundError:
            config = StreamConfig(name=DEAD_LETTER_STREAM, subjects=[self._subject], max_bytes=_MAX_BYTES)
            await manager.add_stream(config)
            log.info("dead_letter_stream_made", stream=DEAD_LETTER_STREAM, subject=self._subject)
        self._made = True
