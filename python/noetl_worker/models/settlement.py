"""The ways in which a notification can end, each with the answer that JetStream gets.

Code decides by `OutcomeKind` alone; texts are for people and nothing parses them. The values of `OutcomeKind` are the
words used in logs, metrics and dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Raise at the end of a table. Mypy refuses the call if a row is missing (`typing` has it from Python 3.11 on).

    Raises:
        AssertionError: always.
    """
    raise AssertionError(f"{value!r} has no row")


class Settlement(Enum):
    """The three answers that end a delivery of a message in JetStream."""

    ACK = "ack"
    NAK = "nak"
    TERM = "term"
    """Sent only once the message's dead letter is stored."""

    __hash__ = object.__hash__  # the tables are read for every command, and Enum.__hash__ is a slow Python function


class OutcomeKind(Enum):
    """Ways in which a notification can end: the word for logs and metrics, and the answer to JetStream."""

    REPORTED = "reported", Settlement.ACK
    FINISHED_BEFORE = "already_finished", Settlement.ACK
    FINISHED_HERE = "already_finished_here", Settlement.ACK
    HELD_BY_OTHER = "held_by_other", Settlement.NAK
    HELD_BY_THIS_WORKER = "held_by_this_worker", Settlement.NAK
    BUSY = "retry_later", Settlement.NAK
    AUTH_REFUSED = "auth_refused", Settlement.NAK
    NOT_FOUND = "not_found", Settlement.NAK
    """A command that the plane does not know yet; if that stays so, UNKNOWN_COMMAND."""
    FOREIGN_POOL = "foreign_pool", Settlement.NAK
    """A command of another pool, whose workers may still get it; if none does for too long, POOL_NOT_SERVED."""
    SYSTEM_POOL = "system_pool", Settlement.ACK
    """A command of the pool `system`, matched by a filter for all pools. Workers of that pool get it from their own
    durable."""
    DUPLICATE = "in_flight_here", Settlement.NAK
    NO_SLOT = "no_free_slot", Settlement.NAK
    OVER_SHARE = "over_share", Settlement.NAK
    """A command whose execution already has its share of the slots (pipeline/delivery/execution_share.py)."""
    RETURNED = "returned", Settlement.NAK
    INTERRUPTED = "interrupted", Settlement.NAK
    SHORT_OF_RESOURCES = "short_of_resources", Settlement.NAK
    INTERNAL_ERROR = "internal_error", Settlement.NAK
    NOT_A_NOTIFICATION = "not_a_notification", Settlement.TERM
    UNKNOWN_COMMAND = "unknown_command", Settlement.TERM
    CLAIM_REFUSED = "claim_refused", Settlement.TERM
    SERVER_ERRORS = "server_errors", Settlement.TERM
    OUTCOME_REFUSED = "outcome_refused", Settlement.TERM
    POOL_NOT_SERVED = "pool_not_served", Settlement.TERM

    value: str
    settlement: Settlement

    def __new__(cls, word: str, settlement: Settlement) -> OutcomeKind:
        kind = object.__new__(cls)
        kind._value_, kind.settlement = word, settlement
        return kind

    __hash__ = object.__hash__


_REASONS: Final[Mapping[OutcomeKind, str]] = {
    OutcomeKind.NOT_A_NOTIFICATION: "not a notification",
    OutcomeKind.UNKNOWN_COMMAND: "unknown command",
    OutcomeKind.SERVER_ERRORS: "server error at every try",
    OutcomeKind.OUTCOME_REFUSED: "the control plane refuses the outcome",
    OutcomeKind.POOL_NOT_SERVED: "another pool's command",
}
"""First words of a dead letter's reason. A refused claim has only the plane's answer, which begins with "claim"."""
_NAMES: Final = {**_REASONS, OutcomeKind.CLAIM_REFUSED: "claim"}
SETTLED: Final[Mapping[tuple[OutcomeKind, Settlement], str]] = {
    (kind, settlement): f"{settlement.value}:{_NAMES.get(kind, kind.value)}"
    for kind in OutcomeKind
    for settlement in Settlement
}
"""Words of the summary line, by the answer that was really given: a dead letter that could not be stored is a nak."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one notification."""

    kind: OutcomeKind
    text: str = ""
    """The reason, for people."""
    delay_s: float = 0.0
    """Delay of a nak. It is zero only at shutdown."""

    @property
    def settlement(self) -> Settlement:
        return self.kind.settlement

    @property
    def dead_letter(self) -> bool:
        return self.settlement is Settlement.TERM

    @property
    def reason(self) -> str:
        """The reason for the log: a word, or the complete text if there is a dead letter."""
        if not self.dead_letter:
            return self.kind.value
        begins = _REASONS.get(self.kind)
        return f"{begins}: {self.text}" if begins else self.text
