"""Answering: one table from the outcome of a notification to the answer for JetStream (ack, nak with a delay, or term).

Most naks have a random delay that grows with the deliveries; only a stopping worker's nak has none. In production, naks
without a delay made one permanent failure loop a thousand times a second.
"""

from __future__ import annotations

import random
from typing import Final

from noetl_worker.models import backoff
from noetl_worker.models.claim import (
    AlreadyFinished,
    AuthRefusedClaim,
    ClaimAnswer,
    Claimed,
    ClaimRefused,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.disposition import Disposition, DispositionKind, assert_never
from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.delivery.in_flight import Seen
from noetl_worker.remote.plane.answers import floor_s
from noetl_worker.remote.plane.dialects import RULES

AUTH_DELAY_S: Final = 30.0
REPORTED: Final = Disposition(DispositionKind.REPORTED)
"""The plane has accepted the terminal events."""
MAX_DELAY_S: Final = 30.0
MAX_SERVER_ERROR_AGE_S: Final = 2880.0
"""Age at which a message that met only server errors becomes a dead letter, in seconds. The stream forgets it after an
hour (protocol/notification.md#stream)."""
MIN_SERVER_ERRORS: Final = 6
"""Fewest deliveries before an old message becomes a dead letter. All workers may have been down when it got old."""


def _growing_s(num_delivered: int, first_s: float) -> float:
    """Return a delay of which nine tenths are random. It is never zero: a failing message would come back at once."""
    return backoff.delay_s(num_delivered, first_s, MAX_DELAY_S, jitter=0.9)


def _is_old(num_delivered: int, message_age_s: float) -> bool:
    """Return whether the message was tried for as long as the stream allows."""
    return message_age_s > MAX_SERVER_ERROR_AGE_S and num_delivered >= MIN_SERVER_ERRORS


MAX_NOT_FOUND: Final = 6
"""Deliveries of a command that the plane does not know, before it becomes a dead letter."""


def answer_to_claim(  # noqa: RET503 - the last row does not return
    claim: ClaimAnswer,
    num_delivered: int,
    *,
    message_age_s: float = 0.0,
    at_least_s: float = 0.0,
) -> Disposition:
    """Return the answer for a claim that did not give us the command.

    Args:
        num_delivered: JetStream's count, 1 the first time.
        message_age_s: seconds since the message was published.
        at_least_s: shortest delay after a server error (retry_pace.py).
    """
    match claim:
        case AlreadyFinished():
            return Disposition(DispositionKind.FINISHED_BEFORE, claim.reason)
        case HeldByOther():
            return _held(DispositionKind.HELD_BY_OTHER, claim, num_delivered)
        case HeldByThisWorker():
            return _held(DispositionKind.HELD_BY_THIS_WORKER, claim, num_delivered)
        case RetryLater():
            if claim.is_server_error and _is_old(num_delivered, message_age_s):
                return Disposition(DispositionKind.SERVER_ERRORS, claim.reason)
            wait_s = max(at_least_s, floor_s(claim.retry_after_s) + _growing_s(num_delivered, 0.5))
            return Disposition(DispositionKind.BUSY, claim.reason, wait_s)
        case AuthRefusedClaim():
            return Disposition(DispositionKind.AUTH_REFUSED, claim.reason, AUTH_DELAY_S)
        case NotFound():
            if num_delivered >= MAX_NOT_FOUND:
                return Disposition(DispositionKind.UNKNOWN_COMMAND, claim.reason)
            return Disposition(DispositionKind.NOT_FOUND, claim.reason, _growing_s(num_delivered, 1.0))
        case ClaimRefused():
            return Disposition(DispositionKind.CLAIM_REFUSED, claim.reason)
        case Claimed():
            raise AssertionError("a command that is ours has no answer before its end")
        case _:
            assert_never(claim)


def _held(kind: DispositionKind, held: HeldByOther | HeldByThisWorker, num_delivered: int) -> Disposition:
    """Return a nak. The holder may die, so the next claim decides; if the command is finished by then, it gets an
    ack."""
    return Disposition(kind, held.reason, max(floor_s(held.retry_after_s), _growing_s(num_delivered, 2.0)))


def no_free_slot() -> Disposition:
    """Return the nak for a message beyond the free slots (an old pull after a reconnect)."""
    return Disposition(DispositionKind.NO_SLOT, delay_s=1.0)


def over_share(delay_s: float) -> Disposition:
    """Return the nak for a command whose execution has its share of the slots while other executions wait."""
    return Disposition(DispositionKind.OVER_SHARE, delay_s=delay_s)


def internal_error(num_delivered: int, cause: str) -> Disposition:
    """Return the nak after a bug of ours. Each delay is longer than the last, and the message is never lost
    silently."""
    return Disposition(DispositionKind.INTERNAL_ERROR, cause, _growing_s(num_delivered, 5.0))


def duplicate(seen: Seen, num_delivered: int) -> Disposition | None:
    """Return the answer for a command that is known here, or None if the delivery in progress will be answered
    instead."""
    if seen is Seen.REDELIVERED:
        return None
    if seen is Seen.FINISHED:
        return Disposition(DispositionKind.FINISHED_HERE)
    first_s = 0.5 if seen is Seen.BEING_REPORTED else 8.0
    return Disposition(DispositionKind.DUPLICATE, delay_s=_growing_s(num_delivered, first_s))


def foreign_pool(cause: str, num_delivered: int, message_age_s: float) -> Disposition:
    """Return the nak for a command of another pool. Before the stream forgets the message, it becomes a dead letter."""
    if _is_old(num_delivered, message_age_s):
        return Disposition(DispositionKind.POOL_NOT_SERVED, cause)
    return Disposition(DispositionKind.FOREIGN_POOL, cause, _growing_s(num_delivered, 1.0))


def system_pool(cause: str) -> Disposition:
    """Return the ack for a command of the pool `system`, as the published Rust worker does (nats/source.rs of 5.52.0).

    A nak would keep the message in max_ack_pending for an hour; with one per step, 1,000 of them would stop the
    durable.
    """
    return Disposition(DispositionKind.SYSTEM_POOL, cause)


def not_a_notification(cause: str) -> Disposition:
    """Return the term for bytes that can never be claimed: they become a dead letter and are not redelivered."""
    return Disposition(DispositionKind.NOT_A_NOTIFICATION, cause)


def outcome_refused(cause: str) -> Disposition:
    return Disposition(DispositionKind.OUTCOME_REFUSED, cause)


def returned() -> Disposition:
    """Return the nak of a worker that stops before the claim or before its answer, without a delay: another worker
    takes the message now."""
    return Disposition(DispositionKind.RETURNED)


def short_of_resources(
    dialect: Dialect, num_delivered: int, message_age_s: float, cause: str, *, can_return: bool, is_started: bool
) -> Disposition | None:
    """Return the nak for a command that this machine lacked resources for, or None to report it as failed.

    The command has had no effect yet. It is reported if its message is as old as MAX_SERVER_ERROR_AGE_S allows, or if
    no worker could claim it again: on a Rust plane without WORKER_ID (`can_return` is false), or for 1,800 s
    after the Python plane has learned of the start.
    """
    would_be_refused = is_started and not RULES[dialect].accepts_same_worker
    if _is_old(num_delivered, message_age_s) or would_be_refused or not can_return:
        return None
    return Disposition(DispositionKind.SHORT_OF_RESOURCES, cause, _growing_s(num_delivered, 2.0))


def interrupted(dialect: Dialect, claim_age_s: float, lease_s: float) -> Disposition:
    """Return the nak for a command that was stopped while it ran, delayed until it can be claimed again.

    Python plane: a claim is given to another worker once it is older than the lease; an earlier try would only be
    refused. Rust plane: the same worker id is accepted at any time.
    """
    rest_s = 0.0 if RULES[dialect].accepts_same_worker else max(0.0, lease_s - claim_age_s)
    return Disposition(DispositionKind.INTERRUPTED, delay_s=rest_s + 1.0 + 2.0 * random.random())
