"""How one notification ended, as data, and what JetStream is answered for it.

`OutcomeKind` decides; texts are for people, and nothing reads them. Its values are the words of logs, metrics and
dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """For the end of a table: mypy refuses the call where a row is missing (`typing` has it from Python 3.11 on)."""
    raise AssertionError(f"{value!r} has no row")


class Settlement(Enum):
    """The three answers JetStream knows for a message that is done with."""

    ACK = "ack"
    NAK = "nak"
    TERM = "term"
    """Only once its dead letter is stored."""

    __hash__ = object.__hash__  # the tables are read for every command, and Enum's own is a Python function


class OutcomeKind(Enum):
    REPORTED = "reported"
    FINISHED_BEFORE = "already_finished"
    FINISHED_HERE = "already_finished_here"
    HELD_BY_OTHER = "held_by_other"
    HELD_BY_THIS_WORKER = "held_by_this_worker"
    BUSY = "retry_later"
    AUTH_REFUSED = "auth_refused"
    NOT_FOUND = "not_found"
    """Nobody knows the command, which may change; UNKNOWN_COMMAND when it did not."""
    FOREIGN_POOL = "foreign_pool"
    """For another pool, whose worker may still get it; POOL_NOT_SERVED when none did for too long."""
    SYSTEM_POOL = "system_pool"
    """For the pool `system`, brought by a filter for all pools: its own workers have it from their own durable."""
    DUPLICATE = "in_flight_here"
    NO_SLOT = "no_free_slot"
    OVER_SHARE = "over_share"
    """Its execution has its share of the slots (delivery/execution_share.py)."""
    RETURNED = "returned"
    INTERRUPTED = "interrupted"
    SHORT_OF_RESOURCES = "short_of_resources"
    INTERNAL_ERROR = "internal_error"
    NOT_A_NOTIFICATION = "not_a_notification"
    UNKNOWN_COMMAND = "unknown_command"
    CLAIM_REFUSED = "claim_refused"
    SERVER_ERRORS = "server_errors"
    OUTCOME_REFUSED = "outcome_refused"
    POOL_NOT_SERVED = "pool_not_served"

    __hash__ = object.__hash__


def _settlement(kind: OutcomeKind) -> Settlement:
    match kind:
        case OutcomeKind.REPORTED | OutcomeKind.FINISHED_BEFORE | OutcomeKind.FINISHED_HERE:
            return Settlement.ACK
        case OutcomeKind.SYSTEM_POOL:
            return Settlement.ACK
        case OutcomeKind.HELD_BY_OTHER | OutcomeKind.HELD_BY_THIS_WORKER | OutcomeKind.DUPLICATE:
            return Settlement.NAK
        case OutcomeKind.BUSY | OutcomeKind.AUTH_REFUSED | OutcomeKind.NOT_FOUND:
            return Settlement.NAK
        case OutcomeKind.OVER_SHARE:
            return Settlement.NAK
        case OutcomeKind.NO_SLOT | OutcomeKind.RETURNED | OutcomeKind.INTERRUPTED:
            return Settlement.NAK
        case OutcomeKind.SHORT_OF_RESOURCES | OutcomeKind.INTERNAL_ERROR | OutcomeKind.FOREIGN_POOL:
            return Settlement.NAK
        case OutcomeKind.NOT_A_NOTIFICATION | OutcomeKind.UNKNOWN_COMMAND | OutcomeKind.CLAIM_REFUSED:
            return Settlement.TERM
        case OutcomeKind.SERVER_ERRORS | OutcomeKind.OUTCOME_REFUSED | OutcomeKind.POOL_NOT_SERVED:
            return Settlement.TERM
        case _:
            assert_never(kind)


SETTLEMENT: Final[Mapping[OutcomeKind, Settlement]] = {kind: _settlement(kind) for kind in OutcomeKind}
_REASONS: Final[Mapping[OutcomeKind, str]] = {
    OutcomeKind.NOT_A_NOTIFICATION: "not a notification",
    OutcomeKind.UNKNOWN_COMMAND: "unknown command",
    OutcomeKind.SERVER_ERRORS: "server error at every try",
    OutcomeKind.OUTCOME_REFUSED: "the control plane refuses the outcome",
    OutcomeKind.POOL_NOT_SERVED: "another pool's command",
}
"""How the reason of a dead letter begins. A refused claim has the plane's answer alone, which begins with "claim"."""
_NAMES: Final = {**_REASONS, OutcomeKind.CLAIM_REFUSED: "claim"}
SETTLED: Final[Mapping[tuple[OutcomeKind, Settlement], str]] = {
    (kind, settlement): f"{settlement.value}:{_NAMES.get(kind, kind.value)}"
    for kind in OutcomeKind
    for settlement in Settlement
}
"""The words of the summary line, by what was really answered: a dead letter that could not be stored is returned."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one notification ended."""

    kind: OutcomeKind
    text: str = ""
    """Why, for people."""
    delay_s: float = 0.0
    """Only for nak; never zero but at shutdown."""

    @property
    def settlement(self) -> Settlement:
        return SETTLEMENT[self.kind]

    @property
    def dead_letter(self) -> bool:
        return self.settlement is Settlement.TERM

    @property
    def reason(self) -> str:
        """For the log: a word; of a dead letter the complete text."""
        if not self.dead_letter:
            return self.kind.value
        begins = _REASONS.get(self.kind)
        return f"{begins}: {self.text}" if begins else self.text
