"""The ways in which a notification can end, each with the answer that JetStream gets.

Code decides by the kind alone. Texts are for people, and nothing parses them. A kind's value is its word in logs,
metrics and dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Raise at the end of a `match`. Mypy refuses the call if a case is missing (`typing` has this function from Python
    3.11 on).

    Raises:
        AssertionError: always.
    """
    raise AssertionError(f"{value!r} has no row")


class Answer(Enum):
    """The three answers that end a delivery of a message in JetStream."""

    ACK = "ack"
    NAK = "nak"
    TERM = "term"
    """Answer that is sent only once the message's dead letter is stored."""

    __hash__ = object.__hash__  # Enum.__hash__ is a slow Python function, and every command looks up answers


class DispositionKind(Enum):
    """Ways in which a notification can end. Each has its word for logs and metrics, and the answer to JetStream."""

    REPORTED = "reported", Answer.ACK
    FINISHED_BEFORE = "already_finished", Answer.ACK
    FINISHED_HERE = "already_finished_here", Answer.ACK
    HELD_BY_OTHER = "held_by_other", Answer.NAK
    HELD_BY_THIS_WORKER = "held_by_this_worker", Answer.NAK
    BUSY = "retry_later", Answer.NAK
    AUTH_REFUSED = "auth_refused", Answer.NAK
    NOT_FOUND = "not_found", Answer.NAK
    """A command that the plane does not know yet. After some deliveries it becomes UNKNOWN_COMMAND."""
    FOREIGN_POOL = "foreign_pool", Answer.NAK
    """A command of another pool, whose workers may still get it. Once the message is old it becomes POOL_NOT_SERVED."""
    SYSTEM_POOL = "system_pool", Answer.ACK
    """A command of the pool `system`, matched by a filter for all pools. Workers of that pool get it from their own
    durable."""
    DUPLICATE = "in_flight_here", Answer.NAK
    NO_SLOT = "no_free_slot", Answer.NAK
    OVER_SHARE = "over_share", Answer.NAK
    """A command whose execution already has its share of the slots (pipeline/delivery/execution_share.py)."""
    RETURNED = "returned", Answer.NAK
    INTERRUPTED = "interrupted", Answer.NAK
    SHORT_OF_RESOURCES = "short_of_resources", Answer.NAK
    INTERNAL_ERROR = "internal_error", Answer.NAK
    NOT_A_NOTIFICATION = "not_a_notification", Answer.TERM
    UNKNOWN_COMMAND = "unknown_command", Answer.TERM
    CLAIM_REFUSED = "claim_refused", Answer.TERM
    SERVER_ERRORS = "server_errors", Answer.TERM
    OUTCOME_REFUSED = "outcome_refused", Answer.TERM
    POOL_NOT_SERVED = "pool_not_served", Answer.TERM

    value: str
    answer: Answer

    def __new__(cls, word: str, answer: Answer) -> DispositionKind:
        kind = object.__new__(cls)
        kind._value_, kind.answer = word, answer
        return kind

    __hash__ = object.__hash__


_REASONS: Final[Mapping[DispositionKind, str]] = {
    DispositionKind.NOT_A_NOTIFICATION: "not a notification",
    DispositionKind.UNKNOWN_COMMAND: "unknown command",
    DispositionKind.SERVER_ERRORS: "server error at every try",
    DispositionKind.OUTCOME_REFUSED: "the control plane refuses the outcome",
    DispositionKind.POOL_NOT_SERVED: "another pool's command",
}
"""First words of the reason in a dead letter. The reason of a refused claim is the plane's answer alone, which begins
with "claim"."""
_NAMES: Final = {**_REASONS, DispositionKind.CLAIM_REFUSED: "claim"}
WORDS: Final[Mapping[tuple[DispositionKind, Answer], str]] = {
    (kind, answer): f"{answer.value}:{_NAMES.get(kind, kind.value)}" for kind in DispositionKind for answer in Answer
}
"""Words of the summary line, by kind and by the answer that was really given: it is a nak if the dead letter could not
be stored."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """The end of one notification."""

    kind: DispositionKind
    text: str = ""
    """Cause, for people."""
    delay_s: float = 0.0
    """Delay of a nak in seconds. It is zero only while the worker stops."""

    @property
    def answer(self) -> Answer:
        return self.kind.answer

    @property
    def dead_letter(self) -> bool:
        return self.answer is Answer.TERM

    @property
    def reason(self) -> str:
        """Reason for the log: the kind's word or, for a dead letter, the complete text."""
        if not self.dead_letter:
            return self.kind.value
        begins = _REASONS.get(self.kind)
        return f"{begins}: {self.text}" if begins else self.text
