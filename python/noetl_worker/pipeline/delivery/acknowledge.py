"""The choice of the answer to JetStream for each message: ack, nak with a delay, or term. `settle.py` sends it.

Most naks have a random delay that grows with the number of deliveries. Only the nak of a worker that stops before its
claim is granted (`returned`) has no delay. In production, naks without a delay once redelivered a failing message a
thousand times a second.
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
from noetl_worker.remote.plane.answers import min_retry_delay_s
from noetl_worker.remote.plane.dialects import RULES

AUTH_DELAY_S: Final = 30.0
REPORTED: Final = Disposition(DispositionKind.REPORTED)
"""Disposition of a command whose terminal events the plane has accepted."""
MAX_DELAY_S: Final = 30.0
OLD_AFTER_S: Final = 2880.0
"""Age in seconds from which a message counts as old (`_is_old`). An old message that fails again becomes a dead letter,
or its command is reported as failed. Otherwise the stream would delete the message, an hour after it was published
(protocol/notification.md#stream)."""
MIN_OLD_DELIVERIES: Final = 6
"""Number of deliveries from which a message may count as old (`_is_old`). A message with fewer deliveries is not old,
whatever its age, because it may only have waited while all workers were down."""


def _growing_s(num_delivered: int, first_s: float) -> float:
    """Return a delay in seconds that grows with the number of deliveries. Nine tenths of the delay are random. The
    delay is never zero, so that a failing message does not come back at once."""
    return backoff.delay_s(num_delivered, first_s, MAX_DELAY_S, jitter=0.9)


def _is_old(num_delivered: int, message_age_s: float) -> bool:
    """Return whether the stream will soon delete the message, and the message was delivered several times."""
    return message_age_s > OLD_AFTER_S and num_delivered >= MIN_OLD_DELIVERIES


MAX_NOT_FOUND: Final = 6
"""Number of deliveries after which a command that the plane does not know becomes a dead letter."""


def answer_to_claim(  # noqa: RET503 - the last row does not return
    claim: ClaimAnswer,
    num_delivered: int,
    *,
    message_age_s: float = 0.0,
    at_least_s: float = 0.0,
) -> Disposition:
    """Return the disposition of a message whose claim did not give the command to this worker.

    Args:
        num_delivered: the number of deliveries of the message so far, with this one. Deliveries that this worker
            returned to let other executions run (`over_share`) do not count (`Delivery.tries`).
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
            wait_s = max(at_least_s, min_retry_delay_s(claim.retry_after_s) + _growing_s(num_delivered, 0.5))
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
            raise AssertionError("a granted claim is not answered: the command's outcome decides the answer")
        case _:
            assert_never(claim)


def _held(kind: DispositionKind, held: HeldByOther | HeldByThisWorker, num_delivered: int) -> Disposition:
    """Return the nak for a command that was claimed before, by another worker or with this worker's id. The process
    with the earlier claim may die, so the next delivery claims the command again."""
    return Disposition(kind, held.reason, max(min_retry_delay_s(held.retry_after_s), _growing_s(num_delivered, 2.0)))


def no_free_slot() -> Disposition:
    """Return the nak for a message that finds no free slot. After a reconnect, an old pull request may deliver such a
    message."""
    return Disposition(DispositionKind.NO_SLOT, delay_s=1.0)


def over_share(delay_s: float) -> Disposition:
    """Return the nak for a command whose execution already uses its share of the worker's slots
    (NOETL_WORKER_EXECUTION_SHARE), while other executions wait."""
    return Disposition(DispositionKind.OVER_SHARE, delay_s=delay_s)


def internal_error(num_delivered: int, cause: str) -> Disposition:
    """Return the nak after a bug of this worker, so that the message is delivered again. The delay grows with each
    delivery. The stream still deletes the message an hour after it was published."""
    return Disposition(DispositionKind.INTERNAL_ERROR, cause, _growing_s(num_delivered, 5.0))


def duplicate(seen: Seen, num_delivered: int) -> Disposition | None:
    """Return the disposition of a message whose command this worker already runs or has finished. Return None if an
    earlier delivery of the same message is still in progress. JetStream then takes the answer to the earlier delivery
    for both."""
    if seen is Seen.REDELIVERED:
        return None
    if seen is Seen.FINISHED:
        return Disposition(DispositionKind.FINISHED_HERE)
    first_s = 0.5 if seen is Seen.BEING_REPORTED else 8.0
    return Disposition(DispositionKind.DUPLICATE, delay_s=_growing_s(num_delivered, first_s))


def foreign_pool(cause: str, num_delivered: int, message_age_s: float) -> Disposition:
    """Return the nak for a command of another worker pool, or the term that makes an old message a dead letter before
    the stream deletes the message."""
    if _is_old(num_delivered, message_age_s):
        return Disposition(DispositionKind.POOL_NOT_SERVED, cause)
    return Disposition(DispositionKind.FOREIGN_POOL, cause, _growing_s(num_delivered, 1.0))


def system_pool(cause: str) -> Disposition:
    """Return the ack for a command of the worker pool `system`, which this worker does not run. The workers of that
    pool receive the command from their own durable.

    NoETL's published Rust worker acks such a message too (nats/source.rs of 5.52.0). A nak would bring the message back
    until the stream deletes the message, after an hour. Meanwhile the message would count against max_ack_pending of
    this worker's durable. Each step causes such a message, and 1,000 of these messages would block the durable.
    """
    return Disposition(DispositionKind.SYSTEM_POOL, cause)


def not_a_notification(cause: str) -> Disposition:
    """Return the term for a message that is not a command notification. The message becomes a dead letter and is not
    redelivered."""
    return Disposition(DispositionKind.NOT_A_NOTIFICATION, cause)


def outcome_refused(cause: str) -> Disposition:
    return Disposition(DispositionKind.OUTCOME_REFUSED, cause)


def returned() -> Disposition:
    """Return the nak of a worker that stops before a claim was granted. The nak has no delay, so that another worker
    takes the message now."""
    return Disposition(DispositionKind.RETURNED)


def short_of_resources(
    dialect: Dialect, num_delivered: int, message_age_s: float, cause: str, *, can_claim_again: bool, is_started: bool
) -> Disposition | None:
    """Return the nak for a command for which this machine lacked resources. Return None if the command must be reported
    as failed.

    The command has had no effect yet. The command is reported as failed if its message is old (`_is_old`), or if the
    plane would refuse a second claim. A Rust plane refuses the claim if WORKER_ID is not set (`can_claim_again` is
    false). The Python plane refuses the claim for 1,800 s after `command.started` (`is_started`).
    """
    would_be_refused = is_started and not RULES[dialect].accepts_same_worker
    if _is_old(num_delivered, message_age_s) or would_be_refused or not can_claim_again:
        return None
    return Disposition(DispositionKind.SHORT_OF_RESOURCES, cause, _growing_s(num_delivered, 2.0))


def interrupted(dialect: Dialect, claim_age_s: float, lease_s: float) -> Disposition:
    """Return the nak for a claimed command whose outcome was not accepted before the worker stopped. The nak's delay
    lasts until the command can be claimed again.

    The Python plane refuses other workers until the claim is older than the lease. The Rust plane accepts a claim of
    the same worker id at any time.
    """
    rest_s = 0.0 if RULES[dialect].accepts_same_worker else max(0.0, lease_s - claim_age_s)
    return Disposition(DispositionKind.INTERRUPTED, delay_s=rest_s + 1.0 + 2.0 * random.random())
