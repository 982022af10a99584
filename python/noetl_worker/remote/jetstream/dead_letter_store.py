"""Stream of dead letters: messages that can never run, stored with the reason. The worker makes the stream for the
first dead letter. Dead letters never expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import nats
import structlog

from noetl_worker.errors import JetStreamError
from noetl_worker.observability import metrics
from noetl_worker.remote.jetstream.api import ALREADY_THERE, ApiRefused, ask, owning_stream
from noetl_worker.remote.jetstream.comparison import SHARED_CONFIG
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.message_search import StoredMessage, get, read_each
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT

DEAD_LETTER_STREAM: Final = "NOETL_DEAD_LETTERS"
_NEW_STREAM: Final = {
    "name": DEAD_LETTER_STREAM,
    "subjects": [DEAD_LETTER_SUBJECT],
    "max_bytes": 256 * 1024 * 1024,
    "discard": "new",  # a full stream refuses new dead letters, whose messages are returned; old ones stay
    **SHARED_CONFIG,
}
_PUBLISH_TIMEOUT_S: Final = 5
COUNTED_EVERY_S: Final = 60.0
AFTER_A_FAILURE_S: Final = 900.0
"""Seconds to wait after a failed count of the dead letters. Without this wait, a login without permission would log a
warning each minute."""
_NOT_COUNTED_ADVICE: Final = (
    "run `noetl-worker doctor`, which checks the permission: the metric of dead letters is out of date"
)
log = structlog.get_logger("noetl_worker.remote.jetstream")


class DeadLetterStore:
    """Store of dead letters: the stream that owns DEAD_LETTER_SUBJECT, with methods to store, count, read, delete and
    publish again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made = False
        self._lock = asyncio.Lock()
        self._count_due_at = 0.0

    async def publish(self, subject: str, data: bytes, message_id: str) -> None:
        """Store one dead letter, and return when the server has the dead letter.

        For two minutes (the stream's duplicate window) the server drops a second message with the same id.

        Raises:
            JetStreamError: the dead letter is not stored.
        """
        try:
            async with self._lock:
                await self._ensure()
            await self._connection.client.jetstream().publish(
                subject, data, timeout=_PUBLISH_TIMEOUT_S, headers={"Nats-Msg-Id": message_id}
            )
        except (JetStreamError, nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            self._made = False  # the stream may have been deleted: look again next time
            raise JetStreamError(
                f"dead letter not stored on {subject} ({error!r}): check that the stream has room, and that this "
                "login may publish there"
            ) from error

    async def _ensure(self) -> None:
        if self._made:
            return
        client = self._connection.client
        if await owning_stream(client, DEAD_LETTER_SUBJECT) is None:
            try:
                await ask(client, f"STREAM.CREATE.{DEAD_LETTER_STREAM}", _NEW_STREAM)
                log.info("dead_letter_stream_made", stream=DEAD_LETTER_STREAM, subject=DEAD_LETTER_SUBJECT)
            except ApiRefused as refused:
                if refused.err_code not in ALREADY_THERE or await owning_stream(client, DEAD_LETTER_SUBJECT) is None:
                    raise
        self._made = True

    async def measure(self) -> None:
        """Count the stored dead letters and set the metric with their number, at most once a minute."""
        if time.monotonic() < self._count_due_at:
            return
        self._count_due_at = time.monotonic() + COUNTED_EVERY_S
        try:
            stream = await self.stream()
            metrics.DEAD_LETTERS_KEPT.set(0 if stream is None else await self.count(stream))
        except JetStreamError as error:
            self._count_due_at = time.monotonic() + AFTER_A_FAILURE_S
            log.warning("dead_letters_not_counted", error=str(error), advice=_NOT_COUNTED_ADVICE)

    # ── for an operator ──

    async def stream(self) -> str | None:
        """Return the name of the stream of dead letters, or None if the stream does not exist yet."""
        return await owning_stream(self._connection.client, DEAD_LETTER_SUBJECT)

    async def get(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return the dead letter with this stream sequence, or None if it does not exist."""
        found = await get(self._connection.client, stream, {"seq": sequence})
        # A stream made by the user may have other subjects too.
        return found if found is not None and found.subject == DEAD_LETTER_SUBJECT else None

    async def dead_letters(self, stream: str, *, newest_first: bool = True) -> AsyncIterator[StoredMessage]:
        """Yield every dead letter that exists now."""
        state = await self.state(stream)
        gone = set(state.get("deleted") or ())
        first, last = int(state["first_seq"]), int(state["last_seq"])
        numbers = [number for number in range(first, last + 1) if number and number not in gone]
        if newest_first:
            numbers.reverse()
        async for found in read_each(self._connection.client, stream, numbers):
            if found.subject == DEAD_LETTER_SUBJECT:
                yield found

    async def count(self, stream: str) -> int:
        return int((await self.state(stream)).get("subjects", {}).get(DEAD_LETTER_SUBJECT, 0))

    async def state(self, stream: str) -> dict[str, Any]:
        """Return the state of the stream of dead letters, as the server reports it: counts, first and last sequence,
        deleted sequences."""
        body = {"deleted_details": True, "subjects_filter": DEAD_LETTER_SUBJECT}
        state = (await ask(self._connection.client, f"STREAM.INFO.{stream}", body))["state"]
        return dict(state)

    async def put_back(self, subject: str, data: bytes, headers: Mapping[str, str], message_id: str) -> tuple[str, int]:
        """Publish the original message of a dead letter again. Return (stream, sequence) once JetStream has stored the
        message.

        Args:
            subject: subject of the original message.
            message_id: id of the message. The stream stores only one message with this id within its duplicate window.

        Raises:
            JetStreamError: the message is not stored, or nobody answered whether the message is stored.
        """
        headers = {**headers, "Nats-Msg-Id": message_id}
        try:
            stored = await self._connection.client.jetstream().publish(
                subject, data, timeout=_PUBLISH_TIMEOUT_S, headers=dict(headers)
            )
        except nats.js.errors.NoStreamResponseError as error:
            raise JetStreamError(
                f"no stream takes {subject}: check that NATS_URL is right and, with noetl-worker nats ensure, that the "
                "command stream exists"
            ) from error
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            raise JetStreamError(
                f"not published to {subject} ({error!r}): try again, the message is stored only once"
            ) from error
        return stored.stream, stored.seq

    async def remove(self, sequence: int) -> None:
        """Delete a dead letter. A dead letter that is already gone is no error.

        Raises:
            JetStreamError: the dead letter is still there.
        """
        stream = await self.stream()
        if stream is None:
            return
        try:
            await ask(self._connection.client, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
        except ApiRefused:  # the err_code does not say why
            if await self.get(stream, sequence) is not None:
                raise
