"""Publisher of the bridge's command records to JetStream. It does not wait for one answer before the next publish.

A publish without an answer is repeated with the same message id, so that JetStream stores the record only once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import nats
import structlog
from nats.aio.msg import Msg

from noetl_worker.bridge import metrics
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.errors import DocumentError, JetStreamError, describe
from noetl_worker.models import backoff
from noetl_worker.observability.outage import Outage
from noetl_worker.remote.jetstream.api import TIMEOUT_S
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.text import json_text

_TURN_S: Final = 1.0
"""Seconds between two checks whether JetStream has left a publish unanswered."""
_HEADERS_BYTES: Final = 256
_NO_STREAM: Final = "no stream takes the subject"
log = structlog.get_logger("noetl_worker.bridge")


class StreamPublisher:
    """Publisher that stores the bridge's command records in a JetStream stream.

    Args:
        ensure: creates the stream if it does not exist.
    """

    def __init__(
        self, connection: Connection, held: HeldRecords, subject: str, ensure: Callable[[], Awaitable[object]]
    ) -> None:
        self._connection, self._held, self._subject, self._ensure = connection, held, subject, ensure
        self._to_send: deque[HeldRecord] = deque()
        self._sent: dict[str, HeldRecord] = {}
        """Unanswered publishes, oldest first, by the last token of their reply subject."""
        self._wanted = asyncio.Event()
        self._inbox = connection.client.new_inbox()
        self._failures = 0
        self._outage = Outage()
        connection.on_reconnected.append(self._send_all_again)

    async def open(self) -> None:
        """Subscribe to the subject at which JetStream answers each publish."""
        await self._connection.client.receive(f"{self._inbox}.*", self._answered)

    @property
    def most_bytes(self) -> int:
        """Size in bytes of the largest notification that the NATS server accepts."""
        return self._connection.client.max_payload - _HEADERS_BYTES

    def put(self, held: HeldRecord) -> None:
        """Queue a record for publishing. It is published again until JetStream has stored it."""
        self._to_send.append(held)
        self._wanted.set()

    async def run(self) -> None:
        """Publish the queued records, again after each failure, until cancelled."""
        ticking = asyncio.ensure_future(self._tick())
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if self._failures:
                    await self._recover()
                await self._send()
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            if self._connection.is_connected and self._has_waited_too_long():
                self._failed("no answer from JetStream")
                self._send_all_again()
            elif self._to_send:
                self._wanted.set()

    def _has_waited_too_long(self) -> bool:
        oldest = next(iter(self._sent.values()), None)
        return oldest is not None and time.monotonic() - oldest.sent_s > TIMEOUT_S

    def _send_all_again(self) -> None:
        """Queue all unanswered records for publishing again, after a timeout or a reconnect to NATS.

        A NATS server that ended may have lost the records or its answers.
        """
        self._to_send.extendleft(reversed(self._sent.values()))
        metrics.RESENT.inc(len(self._sent))
        self._sent.clear()
        self._wanted.set()

    async def _recover(self) -> None:
        """Wait for the retry delay after a failed publish, then create the stream if it does not exist."""
        await asyncio.sleep(backoff.delay_s(self._failures, 0.25, 5.0, jitter=0.5))
        if self._connection.is_connected:
            try:
                await self._ensure()
            except JetStreamError as error:
                self._failed(str(error))

    async def _send(self) -> None:
        """Publish the queued records. After a failure, publish one at a time until JetStream has stored a record."""
        client = self._connection.client
        while self._to_send and self._connection.is_connected and not (self._failures and self._sent):
            held = self._to_send.popleft()
            held.sent_s = time.monotonic()
            token, record = str(held.number), held.record
            self._sent[token] = held
            try:
                await client.publish(
                    record.subject(self._subject),
                    record.payload,
                    reply=f"{self._inbox}.{token}",
                    headers={"Nats-Msg-Id": record.event_id},
                )
            except (nats.errors.Error, OSError, asyncio.TimeoutError) as error:
                self._put_back(token, describe(error))
                return

    def _put_back(self, token: str, problem: str) -> None:
        if (held := self._sent.pop(token, None)) is not None:
            self._to_send.append(held)  # at the end: it may be the only refused record
        self._failed(problem)

    def _failed(self, problem: str) -> None:
        self._failures += 1
        self._wanted.set()
        if (line := self._outage.note_failure(problem)) is not None:
            log.error(
                "bridge_publish_failed",
                held_records=len(self._held),
                **line,
                advice="check JetStream and, with `noetl-worker nats ensure`, the stream. Nothing is lost: the control "
                "plane waits for the acknowledgement",
            )

    def _answered(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        held = self._sent.get(token)
        if held is None:  # the answer to the first of two publishes
            return
        problem, is_duplicate = _read_answer(message)
        if problem:
            metrics.RESENT.inc()
            self._put_back(token, problem)
            return
        del self._sent[token]
        if self._failures:
            self._failures = 0
            self._wanted.set()
        if (line := self._outage.note_success()) is not None:
            log.info("bridge_publishes_again", **line)
        self._held.note_passed_on(held, metrics.DUPLICATE if is_duplicate else metrics.STORED)


def _read_answer(message: Msg) -> tuple[str, bool]:
    """Parse JetStream's answer to a publish.

    Return why the record was not stored ("" if it was), and whether JetStream already had it.
    """
    if not message.data:
        status = (message.headers or {}).get("Status", "")
        return (_NO_STREAM if status == "503" else f"JetStream answers {status or 'nothing'}"), False
    try:
        answer = json_text.loads(message.data)
    except DocumentError as error:
        return f"JetStream answers with {error}", False
    if not isinstance(answer, dict) or "error" in answer or not answer.get("seq"):
        return f"JetStream answers {json_text.dumps(answer).decode()[:200]}", False
    return "", bool(answer.get("duplicate"))
