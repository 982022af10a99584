"""The possible results of handling a command's notification, each with the answer to JetStream: ack, nak or term.

Code branches on `DispositionKind` only. `Disposition.text` and `Disposition.reason` are for people, and no code parses
them. The value of a kind, such as `already_finished`, appears in logs, metrics and dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Raise an error after the last case of a `match`. Mypy refuses the call if a case is missing (`typing` has this
    function from Python 3.11 on).

    Raises:
        AssertionError: always.
    """
    raise AssertionError(f"no `match` branch handles {value!r}: add a branch")


class Answer(Enum):
    """The three answers that end a delivery of a message in JetStream."""

    ACK = "ack"
    NAK = "nak"
    TERM = "term"
    """Answer that stops all further deliveries of a message. It is sent only once the message's dead letter is
    stored."""

    __hash__ = object.__hash__  # Enum.__hash__ is a slow Python function, and every command looks up answers


class DispositionKind(Enum):
    """Possible results of handling a command's notification.

    Each kind has a word for logs and metrics, and an answer to JetStream: ack, nak or term.
    """

    REPORTED = "reported", Answer.ACK
    FINISHED_BEFORE = "already_finished", Answer.ACK
    FINISHED_HERE = "already_finished_here", Answer.ACK
    HELD_BY_OTHER = "held_by_other", Answer.NAK
    HELD_BY_THIS_WORKER = "held_by_this_worker", Answer.NAK
    BUSY = "retry_later", Answer.NAK
    AUTH_REFUSED = "auth_refused", Answer.NAK
    NOT_FOUND = "not_found", Answer.NAK
    """A command that the plane does not know yet. After several deliveries the kind is UNKNOWN_COMMAND instead."""
    FOREIGN_POOL = "foreign_pool", Answer.NAK
    """A command of another pool. The nak lets a worker of that pool take the message. Once the message is old, the kind
    is POOL_NOT_SERVED instead."""
    SYSTEM_POOL = "system_pool", Answer.ACK
    """A command of the pool `system`, received because the worker's filter matches all pools. The worker acks the
    message, since workers of `system` receive the command from their own durable."""
    DUPLICATE = "in_flight_here", Answer.NAK
    NO_SLOT = "no_free_slot", Answer.NAK
    OVER_SHARE = "over_share", Answer.NAK
    """A command whose execution already uses as many slots as one execution may
    (pipeline/delivery/execution_share.py)."""
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
"""First words of a dead letter's reason, by disposition kind. CLAIM_REFUSED has no entry: its reason is the text of the
refusal, and that text already begins with "claim"."""
_NAMES: Final = {**_REASONS, DispositionKind.CLAIM_REFUSED: "claim"}
WORDS: Final[Mapping[tuple[DispositionKind, Answer], str]] = {
    (kind, answer): f"{answer.value}:{_NAMES.get(kind, kind.value)}" for kind in DispositionKind for answer in Answer
}
"""Texts for a command's summary log line, by disposition kind and by the answer that JetStream really got. The real
answer is nak instead of term if the dead letter could not be stored."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """The result of handling one command's notification: its kind, the cause as text, and the delay of a redelivery."""

    kind: DispositionKind
    text: str = ""
    """Cause of the decision, as text for people."""
    delay_s: float = 0.0
    """Seconds until JetStream redelivers a message that the worker answered with nak. Only a stopping worker uses 0."""

    @property
    def answer(self) -> Answer:
        return self.kind.answer

    @property
    def dead_letter(self) -> bool:
        return self.answer is Answer.TERM

    @property
    def reason(self) -> str:
        """Reason for the log: the name of the disposition's kind or, for a dead letter, the text that says why the
        message is given up."""
        if not self.dead_letter:
            return self.kind.value
        begins = _REASONS.get(self.kind)
        return f"{begins}: {self.text}" if begins else self.text
