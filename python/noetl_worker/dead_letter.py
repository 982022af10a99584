"""Messages that can never run, kept with their reason: a stream beside the commands' own.

Settling a message with `term` alone would lose it; here it is stored first, and only then terminated.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from noetl_worker import json_text
from noetl_worker.errors import JetStreamError
from noetl_worker.models import Outcome, Settlement
from noetl_worker.observability import metrics

__all__ = ["DeadLetters", "Settleable", "settle_delivery"]

log = structlog.get_logger("noetl_worker.dead_letter")
_EXCERPT_BYTES: Final = 65_536

_NOT_KEPT_DELAY_S: Final = 30.0
Publish = Callable[[str, bytes], Awaitable[None]]


class Settleable(Protocol):
    """The part of a delivery that is needed to answer it."""

    data: bytes
    subject: str
    num_delivered: int
    stream_sequence: int

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self, reason: str) -> None: ...


class DeadLetters:
    """Where poison goes. `publish` stores one message in JetStream and returns when it is stored."""

    def __init__(self, publish: Publish, subject: str, worker_id: str) -> None:
        self._publish = publish
        self._subject = subject
        self._worker_id = worker_id

    async def keep(
        self, data: bytes, *, subject: str, stream_sequence: int, num_delivered: int, reason: str, **detail: object
    ) -> bool:
        """Store one message. False when it could not be stored: then it must not be terminated.

        The letter is {reason, subject, stream_sequence, num_delivered, worker_id, kept_at, notification, ...}.
        """
        letter = {
            "reason": reason,
            "subject": subject,
            "stream_sequence": stream_sequence,
            "num_delivered": num_delivered,
            "worker_id": self._worker_id,
            "kept_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "notification": data[:_EXCERPT_BYTES].decode("utf-8", "replace"),
            "notification_bytes": len(data),
            **detail,
        }
        try:
            await self._publish(self._subject, json_text.dumps(letter))
        except (JetStreamError, asyncio.TimeoutError) as error:
            log.error("dead_letter_not_kept", stream_sequence=stream_sequence, reason=reason, error=str(error))
            return False
        log.error(
            "dead_letter", subject=subject, stream_sequence=stream_sequence, deliveries=num_delivered, reason=reason
        )
        return True


async def settle_delivery(letters: DeadLetters, delivery: Settleable, outcome: Outcome) -> str | None:
    """Answer JetStream. A message is terminated only once its dead letter is stored.

    Returns:
        "<settlement>:<reason>", or None when the answer did not get through: the message will come again, and the
        claim will say that it is finished.
    """
    settlement, delay_s = outcome.settlement, outcome.delay_s
    if outcome.dead_letter:
        kept = await letters.keep(
            delivery.data,
            subject=delivery.subject,
            stream_sequence=delivery.stream_sequence,
            num_delivered=delivery.num_delivered,
            reason=outcome.reason,
            **outcome.detail,
        )
        if kept:
            metrics.DEAD_LETTERS.inc()
        else:
            settlement, delay_s = Settlement.NAK, _NOT_KEPT_DELAY_S
    try:
        if settlement is Settlement.ACK:
            await delivery.ack()
        elif settlement is Settlement.NAK:
            await delivery.nak(delay_s)
        else:
            await delivery.term(outcome.reason)
    except JetStreamError as error:
        log.warning("not_settled", settlement=settlement.value, reason=outcome.reason, error=str(error))
        return None
    metrics.SETTLEMENTS.labels(settlement.value).inc()
    if settlement is Settlement.NAK:
        log.info(
            "given_back",
            reason=outcome.reason,
            delay_s=round(delay_s, 2),
            deliveries=delivery.num_delivered,
            **outcome.detail,
        )
    return f"{settlement.value}:{outcome.reason.partition(':')[0]}"
