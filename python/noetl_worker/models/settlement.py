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
    """How it ended: the word of it, and what JetStream is answered."""

    REPORTED = "reported", Settlement.ACK
    FINISHED_BEFORE = "already_finished", Settlement.ACK
    FINISHED_HERE = "already_finished_here", Settlement.ACK
    HELD_BY_OTHER = "held_by_other", Settlement.NAK
    HELD_BY_THIS_WORKER = "held_by_this_worker", Settlement.NAK
    BUSY = "retry_later", Settlement.NAK
    AUTH_REFUSED = "auth_refused", Settlement.NAK
    NOT_FOUND = "not_found", Settlement.NAK
    """Nobody knows the command, which may change; UNKNOWN_COMMAND when it did not."""
    FOREIGN_POOL = "foreign_pool", Settlement.NAK
    """For another pool, whose worker may still get it; POOL_NOT_SERVED when none did for too long."""
    SYSTEM_POOL = "system_pool", Settlement.ACK
    """For the pool `system`, brought by a filter for all pools: its own workers have it from their own durable."""
    DUPLICATE = "in_flight_here", Settlement.NAK
    NO_SLOT = "no_free_slot", Settlement.NAK
    OVER_SHARE = "over_share", Settlement.NAK
    """Its execution has its share of the slots (pipeline/delivery/execution_share.py)."""
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
        return self.kind.settlement

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
