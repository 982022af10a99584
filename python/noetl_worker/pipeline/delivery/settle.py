"""The stage `answering`: sends JetStream the answer that acknowledge.py chose (ack, nak with a delay, or term)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from noetl_worker.errors import JetStreamError
from noetl_worker.models.disposition import WORDS, Answer, Disposition, DispositionKind
from noetl_worker.observability import metrics
from noetl_worker.pipeline.delivery.dead_letter import DeadLetters
from noetl_worker.remote.jetstream.delivery import Delivery

log = structlog.get_logger("noetl_worker.settle")
_NOT_STORED_DELAY_S: Final = 30.0
"""Delay in seconds of the nak for a message whose dead letter could not be stored."""
_NOT_ANSWERED_ADVICE: Final = "do nothing: JetStream delivers the message again, and it is then answered"


async def settle_delivery(
    dead_letters: DeadLetters,
    delivery: Delivery,
    disposition: Disposition,
    ids: Callable[[], Mapping[str, object]] = dict,
) -> str | None:
    """Answer JetStream. A message is terminated only after its dead letter is stored.

    Args:
        ids: returns the command's ids; called only for a log line or a dead letter.

    Returns:
        The text for the answer in the command's summary log line (disposition.WORDS), or None if the answer could not
        be sent. JetStream then redelivers the message. The plane refuses the second claim if the command is finished.
    """
    kind, delay_s = disposition.kind, disposition.delay_s
    answer = kind.answer
    if answer is Answer.TERM:
        if await dead_letters.store(delivery, disposition, ids()):
            metrics.DEAD_LETTERS.labels(kind.value).inc()
        else:
            answer, delay_s = Answer.NAK, _NOT_STORED_DELAY_S
    try:
        if answer is Answer.ACK:
            await delivery.ack()
        elif answer is Answer.NAK:
            await delivery.nak(delay_s)
        else:
            await delivery.term(disposition.reason)
    except JetStreamError as error:
        log.warning(
            "message_not_answered",
            answer=answer.value,
            reason=disposition.reason,
            error=str(error),
            stream_sequence=delivery.stream_sequence,
            advice=_NOT_ANSWERED_ADVICE,
            **ids(),
        )
        return None
    metrics.ANSWERED[answer].value += 1
    if answer is Answer.NAK and kind is not DispositionKind.OVER_SHARE:  # OVER_SHARE is frequent and harmless
        cause = {"cause": disposition.text} if disposition.text and not disposition.dead_letter else {}
        log.info(
            "message_returned",
            reason=disposition.reason,
            delay_s=round(delay_s, 2),
            stream_sequence=delivery.stream_sequence,
            deliveries=delivery.num_delivered,
            **cause,
            **ids(),
        )
    return WORDS[kind, answer]
