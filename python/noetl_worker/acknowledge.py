"""Stage 8: what JetStream is answered. One table from how a notification ended to ack, nak(delay) or term.

Every nak has a delay, growing with the deliveries, with full jitter: a bare nak of a permanent failure looped a
thousand times a second in production (production-lessons, lesson 6).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from noetl_worker.in_flight import Seen
from noetl_worker.models import (
    AlreadyFinished,
    AuthRefusedClaim,
    ClaimOutcome,
    Dialect,
    Envelope,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    Outcome,
    Refused,
    RetryLater,
    Settlement,
)

__all__ = [
    "AUTH_DELAY_S",
    "AUTH_REFUSED",
    "after_claim",
    "backoff_s",
    "duplicate",
    "given_back",
    "internal_error",
    "interrupted",
    "named",
    "no_free_slot",
    "poison",
    "reported",
]

AUTH_DELAY_S: Final = 30.0
AUTH_REFUSED: Final = "auth_refused"
MAX_DELAY_S: Final = 30.0
MAX_SERVER_ERROR_AGE_S: Final = 2880.0
"""A message that has met server errors only is set aside before the stream forgets it after an hour (wire.md 1.3)."""
MIN_SERVER_ERRORS: Final = 6
"""Deliveries before that: an old message (all workers were away) must not be set aside for one error."""


def backoff_s(num_delivered: int, first_s: float, *, draw: Callable[[], float] = random.random) -> float:
    """Full jitter between a tenth and the whole of first_s * 2^(n-1), capped at 30 s; never zero."""
    ceiling = min(MAX_DELAY_S, first_s * 2.0 ** min(num_delivered - 1, 16))
    return float(ceiling * (0.1 + 0.9 * draw()))


def after_claim(
    outcome: ClaimOutcome,
    num_delivered: int,
    *,
    max_not_found: int,
    message_age_s: float = 0.0,
    at_least_s: float = 0.0,
) -> Outcome:
    """The answer for a claim that did not give us the command.

    Args:
        num_delivered: JetStream's count, 1 the first time.
        max_not_found: deliveries of an unknown command before it becomes a dead letter.
        message_age_s: how long ago it was published.
        at_least_s: shortest wait of a server error (retry_pace.py).
    """
    if isinstance(outcome, AlreadyFinished):
        return Outcome(Settlement.ACK, "already_finished")
    if isinstance(outcome, (HeldByOther, HeldByThisWorker)):
        # The holder may die; the claim decides then, and a finished command turns into the row above.
        floor_s = min(outcome.retry_after_s or 0.0, MAX_DELAY_S)
        name = "held_by_other" if isinstance(outcome, HeldByOther) else "held_by_this_worker"
        return _later(name, max(floor_s, backoff_s(num_delivered, 2.0)), outcome.reason)
    if isinstance(outcome, RetryLater):
        is_old = message_age_s > MAX_SERVER_ERROR_AGE_S and num_delivered >= MIN_SERVER_ERRORS
        if outcome.is_server_error and is_old:
            return Outcome(Settlement.TERM, f"server error at every try: {outcome.reason}", dead_letter=True)
        floor_s = min(outcome.retry_after_s or 0.0, MAX_DELAY_S)
        return _later("retry_later", max(at_least_s, floor_s + backoff_s(num_delivered, 0.5)), outcome.reason)
    if isinstance(outcome, AuthRefusedClaim):
        return _later(AUTH_REFUSED, AUTH_DELAY_S, outcome.reason)
    if isinstance(outcome, NotFound):
        if num_delivered >= max_not_found:
            return Outcome(Settlement.TERM, f"unknown command: {outcome.reason}", dead_letter=True)
        return _later("not_found", backoff_s(num_delivered, 1.0), outcome.reason)
    if isinstance(outcome, Refused):
        return Outcome(Settlement.TERM, outcome.reason, dead_letter=True)
    raise AssertionError(f"{type(outcome).__name__} is not an answer to JetStream")


def _later(name: str, delay_s: float, cause: str) -> Outcome:
    return Outcome(Settlement.NAK, name, delay_s=delay_s, detail={"cause": cause})


def no_free_slot() -> Outcome:
    """More came than was asked for (an old pull after a reconnect): another worker, or we a little later."""
    return Outcome(Settlement.NAK, "no_free_slot", delay_s=1.0)


def internal_error(num_delivered: int, cause: str) -> Outcome:
    """A bug of ours: the message comes again, later and later, and is never lost in silence."""
    return _later("internal_error", backoff_s(num_delivered, 5.0), cause)


def named(outcome: Outcome, envelope: Envelope) -> Outcome:
    """The outcome with the ids that an operator searches the log for."""
    ids = {"execution_id": envelope.execution_id, "command_id": envelope.command_id, "step": envelope.step}
    return replace(outcome, detail={**outcome.detail, **ids})


def duplicate(seen: Seen, num_delivered: int) -> Outcome | None:
    """The answer for a command that is known here; None leaves it to the delivery that is being worked on."""
    if seen is Seen.REDELIVERED:
        return None
    if seen is Seen.FINISHED:
        return Outcome(Settlement.ACK, "already_finished_here")
    return Outcome(Settlement.NAK, "in_flight_here", delay_s=backoff_s(num_delivered, 8.0))


def reported() -> Outcome:
    """The terminal events are accepted."""
    return Outcome(Settlement.ACK, "reported")


def poison(reason: str) -> Outcome:
    """Bytes that are no notification, or events that no plane accepts: kept with the reason, never again delivered."""
    return Outcome(Settlement.TERM, reason, dead_letter=True)


def given_back() -> Outcome:
    """Stopping before the claim: at once, another worker takes it now."""
    return Outcome(Settlement.NAK, "given_back")


def interrupted(
    dialect: Dialect, claim_age_s: float, lease_s: float, *, draw: Callable[[], float] = random.random
) -> Outcome:
    """Stopped while it ran: back to the queue when somebody can claim it.

    Python plane: a claim is reclaimed once it is older than the lease; sooner would only cost refusals. Rust plane:
    the same id is let in at any time.
    """
    rest_s = max(0.0, lease_s - claim_age_s) if dialect is Dialect.PYTHON else 0.0
    return Outcome(Settlement.NAK, "interrupted", delay_s=rest_s + 1.0 + 2.0 * draw())
