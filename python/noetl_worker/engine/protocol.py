"""What an engine is: the calls both implementations offer, with equal answers and equal errors.

Bytes or small scalars go in, frozen values come out. Nothing here calls back into Python, and neither engine keeps
a caller's object after the call. `engine/pure` is the specification; `rust/engine` is its twin, file for file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from noetl_worker.models.case import CaseAction, SkippedCase
from noetl_worker.models.fit import FitRules, FittedResult
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import JsonValue

MAX_DEPTH: Final = 512
"""Nested arrays and objects a document may have; one more is DocumentError `json_depth`."""

MAX_INTEGER_DIGITS: Final = 4_300
"""Digits of one integer; CPython's own default limit, taken over by the Rust engine (`json_number`)."""

TEMPLATES: Final = 1
"""A mark: `{{`, `{%` or `{#` in a text."""
REFERENCES: Final = 2
"""A mark: a field in the result store, or a keychain entry."""
SECRETS: Final = 4
"""A mark: a key that names a secret, or an address, which may have a password in it."""

Side = Literal["left", "right"]


class CaseMatch(NamedTuple):
    """The first case whose conditions all hold."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a match
    """Position among the cases that parse, as upstream reports it."""
    action: CaseAction


class PendingMatch(Protocol):
    """Matching reached a templated side and waits for its value."""

    @property
    def case(self) -> int:
        """Index of the case, counting only those that parse."""

    @property
    def condition(self) -> int:
        """Index of the condition inside the case."""

    @property
    def side(self) -> Side: ...

    @property
    def template(self) -> JsonValue:
        """The text of a left side, or the whole JSON value of a right side (some string in it has marks)."""

    def resume(self, rendered: bytes) -> CaseMatch | PendingMatch | None:
        """Go on with the rendered value. A handle may be resumed any number of times.

        Args:
            rendered: what `template` gave, as compact JSON.

        Returns:
            As `CompiledCases.match`.

        Raises:
            DocumentError: the bytes are not JSON.
            ConditionError: as `CompiledCases.match`.
        """


class CompiledCases(Protocol):
    """Parsed cases, with the regular expressions of literal right sides compiled."""

    @property
    def skipped(self) -> tuple[SkippedCase, ...]:
        """Elements that do not parse, by their position as written."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Every name a left side may look up, sorted: nothing else of the variables has to be encoded."""

    @property
    def reads_result(self) -> bool:
        """Whether some left side starts at the tool's data; if not, `data` may be None."""

    def __len__(self) -> int: ...

    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | PendingMatch | None:
        """Return the first case that holds, or the first templated side reached, or None.

        Args:
            variables: a JSON object; anything else reads as no variables.
            data: the tool's `data` as JSON; None when the tool returned none.

        Raises:
            ConditionError: a reached condition cannot be evaluated (`not_a_number`, `not_numeric`,
                `invalid_regex`, and `regex_unsupported` on the pure engine); has `case` and `condition`.
            DocumentError: one of the documents does not parse.
        """


class Engine(Protocol):
    """The module `noetl_worker.engine.pure` or `noetl_worker._core`."""

    def decode_notification(self, data: bytes) -> Envelope:
        """Decode a command notification.

        Args:
            data: the payload of the message (protocol/notification.md#message).

        Raises:
            NotificationError: with a code of DocumentError, or `not_an_object`, `missing_field`, `wrong_type`,
                `empty_field`, `out_of_range`.
        """

    def compile_cases(self, data: bytes) -> CompiledCases:
        """Parse cases; one that does not parse is in `skipped`.

        Args:
            data: a JSON array of cases (protocol/conditions.md#cases); any other JSON value is an empty table.

        Raises:
            DocumentError: the bytes are not JSON within the limits.
        """

    def decide(self, left: bytes, op: str, right: bytes | None) -> bool:
        """Apply one operator to two values.

        Args:
            left: a JSON value.
            op: a word of protocol/conditions.md#operators.
            right: a JSON value; None where the operator needs none.

        Raises:
            CaseError: `unknown_operator`.
            ConditionError: the operator makes no sense of the two, as in `CompiledCases.match`.
            DocumentError: one of the values does not parse.
        """

    def evaluate(self, condition: bytes, variables: bytes, data: bytes | None) -> bool:
        """Evaluate one condition without templates.

        Args:
            condition: a JSON object {"left": ..., "op": ..., "right": ...}.
            variables: a JSON object: what a bare left side may name.
            data: the tool's `data` as JSON; None when the tool returned none.

        Raises:
            CaseError: the condition does not parse.
            ConditionError: it cannot be evaluated; `template_reached` for a templated side.
            DocumentError: one of the documents does not parse.
        """

    def fit_result(self, data: bytes, rules: FitRules) -> FittedResult:
        """Redact a JSON document, measure it, and cut a preview if it is over the budget.

        Args:
            data: any JSON value.
            rules: the budget in bytes, and the secrets.

        Raises:
            DocumentError: the bytes are not JSON within the limits.
        """

    def redact_text(self, text: str, secrets: Sequence[str], words: Sequence[str] = ()) -> str:
        """Replace known secrets, credentials by their shape, and `password=...` pairs in free text.

        Args:
            text: any text for people: an error, a line of a log.
            secrets: replaced wherever they are.
            words: replaced where they are whole words.
        """

    def find_marks(self, data: bytes) -> int:
        """What a JSON text may have in it.

        Args:
            data: the text in UTF-8; it need not be JSON.

        Returns:
            The sum of TEMPLATES, REFERENCES and SECRETS. What is not in the sum is certainly not in the text, nor in
            JSON inside of its texts. An escaped ASCII character could hide anything: then it is all of them.
        """
