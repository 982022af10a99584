"""Stage 8: what JetStream is answered. One table from how a notification ended to ack, nak(delay) or term.

Every nak has a delay, growing with the deliveries, with full jitter: a bare nak of a permanent failure looped a
thousand times a second in production.
"""

from __future__ import annotations

import random
from typing import Final

from noetl_worker.models import backoff
from noetl_worker.models.claim import (
    AlreadyFinished,
    AuthRefusedClaim,
    Claimed,
    ClaimOutcome,
    ClaimRefused,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.settlement import Outcome, OutcomeKind, assert_never
from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.delivery.in_flight import Seen
from noetl_worker.remote.plane.answers import floor_s
from noetl_worker.remote.plane.dialects import RULES

AUTH_DELAY_S: Final = 30.0
REPORTED: Final = Outcome(OutcomeKind.REPORTED)
"""The terminal events are accepted."""
MAX_DELAY_S: Final = 30.0
MAX_SERVER_ERROR_AGE_S: Final = 2880.0
"""A message that has met server errors only is kept as a dead letter before the stream forgets it after an hour
(protocol/notification.md#stream)."""
MIN_SERVER_ERRORS: Final = 6
"""Deliveries before that: an old message (all workers were down) must not become a dead letter for one error."""


def _growing_s(num_delivered: int, first_s: float) -> float:
    """Full jitter, and never zero: a bare nak of a permanent failure comes back at once."""
    return backoff.delay_s(num_delivered, first_s, MAX_DELAY_S, jitter=0.9)


def _is_old(num_delivered: int, message_age_s: float) -> bool:
    """Tried for as long as the stream allows."""
    return message_age_s > MAX_SERVER_ERROR_AGE_S and num_delivered >= MIN_SERVER_ERRORS


MAX_NOT_FOUND: Final = 6
"""Deliveries of a command that the plane does not know, before it becomes a dead letter."""


def after_claim(  # noqa: RET503 - the last row does not return
    outcome: ClaimOutcome,
    num_delivered: int,
    *,
    message_age_s: float = 0.0,
    at_least_s: float = 0.0,
) -> Outcome:
    """The answer for a claim that did not give us the command.

    Args:
        num_delivered: JetStream's count, 1 the first time.
        message_age_s: how long ago it was published.
        at_least_s: shortest wait of a server error (retry_pace.py).
    """
    match outcome:
        case AlreadyFinished():
            return Outcome(OutcomeKind.FINISHED_BEFORE, outcome.reason)
        case HeldByOther():
            return _held(OutcomeKind.HELD_BY_OTHER, outcome, num_delivered)
        case HeldByThisWorker():
            return _held(OutcomeKind.HELD_BY_THIS_WORKER, outcome, num_delivered)
        case RetryLater():
            if outcome.is_server_error and _is_old(num_delivered, message_age_s):
                return Outcome(OutcomeKind.SERVER_ERRORS, outcome.reason)
            wait_s = max(at_least_s, floor_s(outcome.retry_after_s) + _growing_s(num_delivered, 0.5))
            return Outcome(OutcomeKind.BUSY, outcome.reason, wait_s)
        case AuthRefusedClaim():
            return Outcome(OutcomeKind.AUTH_REFUSED, outcome.reason, AUTH_DELAY_S)
        case NotFound():
            if num_delivered >= MAX_NOT_FOUND:
                return Outcome(OutcomeKind.UNKNOWN_COMMAND, outcome.reason)
            return Outcome(OutcomeKind.NOT_FOUND, outcome.reason, _growing_s(num_delivered, 1.0))
        case ClaimRefused():
            return Outcome(OutcomeKind.CLAIM_REFUSED, outcome.reason)
        case Claimed():
            raise AssertionError("a command that is ours has no answer before its end")
        case _:
            assert_never(outcome)


def _held(kind: OutcomeKind, held: HeldByOther | HeldByThisWorker, num_delivered: int) -> Outcome:
    """The holder may die; the claim decides then, and a finished command turns into an ack."""
    return Outcome(kind, held.reason, max(floor_s(held.retry_after_s), _growing_s(num_delivered, 2.0)))


def no_free_slot() -> Outcome:
    """More came than was asked for (an old pull after a reconnect): another worker, or we a little later."""
    return Outcome(OutcomeKind.NO_SLOT, delay_s=1.0)


def over_share(delay_s: float) -> Outcome:
    """Its execution has its share of the slots, and others wait."""
    return Outcome(OutcomeKind.OVER_SHARE, delay_s=delay_s)


def internal_error(num_delivered: int, cause: str) -> Outcome:
    """A bug of ours: the message comes again, later and later, and is never lost silently."""
    return Outcome(OutcomeKind.INTERNAL_ERROR, cause, _growing_s(num_delivered, 5.0))


def duplicate(seen: Seen, num_delivered: int) -> Outcome | None:
    """The answer for a command that is known here; None leaves it to the delivery that is being worked on."""
    if seen is Seen.REDELIVERED:
        return None
    if seen is Seen.FINISHED:
        return Outcome(OutcomeKind.FINISHED_HERE)
    first_s = 0.5 if seen is Seen.BEING_REPORTED else 8.0
    return Outcome(OutcomeKind.DUPLICATE, delay_s=_growing_s(num_delivered, first_s))


def foreign_pool(cause: str, num_delivered: int, message_age_s: float) -> Outcome:
    """For another pool: never claimed here, returned for its own workers, and kept before the stream forgets it."""
    if _is_old(num_delivered, message_age_s):
        return Outcome(OutcomeKind.POOL_NOT_SERVED, cause)
    return Outcome(OutcomeKind.FOREIGN_POOL, cause, _growing_s(num_delivered, 1.0))


def system_pool(cause: str) -> Outcome:
    """Passed over, as the published Rust worker does (nats/source.rs of 5.52.0): this durable's copy is done with.

    Returned, it would count against max_ack_pending until the stream forgets it, one for each step of each
    execution, and at 1,000 of them no worker of the durable would get a command.
    """
    return Outcome(OutcomeKind.SYSTEM_POOL, cause)


def not_a_notification(cause: str) -> Outcome:
    """Bytes that can never be claimed: kept with the reason, never again delivered."""
    return Outcome(OutcomeKind.NOT_A_NOTIFICATION, cause)


def outcome_refused(cause: str) -> Outcome:
    """Events that no plane accepts."""
    return Outcome(OutcomeKind.OUTCOME_REFUSED, cause)


def returned() -> Outcome:
    """Stopping before the claim: at once, another worker takes it now."""
    return Outcome(OutcomeKind.RETURNED)


def short_of_resources(
    dialect: Dialect, num_delivered: int, message_age_s: float, cause: str, *, can_return: bool, is_started: bool
) -> Outcome | None:
    """This machine had nothing left to run it with, and it has had no effect; None: it is reported as a failure.

    That is so when it is as old as a message that met server errors only, and where nobody could take it up again: on
    a Rust plane without WORKER_ID (`can_return`), and on the Python plane once it knows of the start, for 1,800 s.
    """
    is_kept_from_us = is_started and not RULES[dialect].lets_same_name_in
    if _is_old(num_delivered, message_age_s) or is_kept_from_us or not can_return:
        return None
    return Outcome(OutcomeKind.SHORT_OF_RESOURCES, cause, _growing_s(num_delivered, 2.0))


def interrupted(dialect: Dialect, claim_age_s: float, lease_s: float) -> Outcome:
    """Stopped while it ran: back to the queue when somebody can claim it.

    Python plane: a claim is reclaimed once it is older than the lease; sooner would only cost refusals. Rust plane:
    the same id is accepted at any time.
    """
    rest_s = 0.0 if RULES[dialect].lets_same_name_in else max(0.0, lease_s - claim_age_s)
    return Outcome(OutcomeKind.INTERRUPTED, delay_s=rest_s + 1.0 + 2.0 * random.random())
