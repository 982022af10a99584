"""The interface of an engine: the calls that both engines have, with equal results and equal errors.

A call takes bytes or small scalars and returns a frozen value. It calls no Python function of the caller, and keeps no
object of the caller after its end. `engine/pure` is the specification; `rust/engine` has a twin of each of its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from noetl_worker.models.case import CaseAction, SkippedCase
from noetl_worker.models.fit import FitRules, FittedResult
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import JsonValue

MAX_DEPTH: Final = 512
"""Largest depth of nested arrays and objects in a document. A deeper document raises the DocumentError `json_depth`."""

MAX_INTEGER_DIGITS: Final = 4_300
"""Most digits of an integer, CPython's default limit. A longer integer raises the DocumentError `json_number`."""

TEMPLATES: Final = 1
"""Bit of `find_marks`: a text may contain `{{`, `{%` or `{#`."""
REFERENCES: Final = 2
"""Bit of `find_marks`: there may be a reference to a field in the result store, or to a keychain entry."""
SECRETS: Final = 4
"""Bit of `find_marks`: there may be a key that names a secret, or a URL, which may contain a password."""

Side = Literal["left", "right"]


class CaseMatch(NamedTuple):
    """The first case whose conditions all hold."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a match
    """Index of the case, counting only cases that parse. The planes' own workers report the same index."""
    action: CaseAction


class PendingMatch(Protocol):
    """A paused search for the first case that holds. A condition's side is a template and has to be rendered first."""

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
        """The value to render: the left side's text, or the right side's JSON value, in which some text is a
        template."""

    def resume(self, rendered: bytes) -> CaseMatch | PendingMatch | None:
        """Go on with the rendered value. A pending match may be resumed any number of times.

        Args:
            rendered: the value that `template` rendered to, as compact JSON.

        Returns:
            The same values as `CompiledCases.match`.

        Raises:
            DocumentError: the bytes are not JSON.
            ConditionError: see `CompiledCases.match`.
        """


class CompiledCases(Protocol):
    """Parsed cases, with the regular expressions of literal right sides compiled."""

    @property
    def skipped(self) -> tuple[SkippedCase, ...]:
        """The elements of the list that do not parse, each with its position as written."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all variables that left sides may look up, sorted. `match` needs no others."""

    @property
    def reads_result(self) -> bool:
        """True if a left side looks into the tool's data. If not, `data` of `match` may be None."""

    def __len__(self) -> int: ...

    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | PendingMatch | None:
        """Return the first case whose conditions all hold, or None; a pending match if a template has to be rendered
        first.

        Args:
            variables: a JSON object; any other value counts as no variables.
            data: the tool's `data` as JSON; None when the tool returned none.

        Raises:
            ConditionError: a reached condition cannot be evaluated (`not_a_number`, `not_numeric`,
                `invalid_regex`, and `regex_unsupported` on the pure engine); has `case` and `condition`.
            DocumentError: one of the documents does not parse.
        """


class Engine(Protocol):
    """The module `noetl_worker.engine.pure.lib` or `noetl_worker._core`."""

    def decode_notification(self, data: bytes) -> Envelope:
        """Decode a command notification.

        Args:
            data: the payload of the message (protocol/notification.md#message).

        Raises:
            NotificationError: with a code of DocumentError, or `not_an_object`, `missing_field`, `wrong_type`,
                `empty_field`, `out_of_range`.
        """

    def compile_cases(self, data: bytes) -> CompiledCases:
        """Parse cases. A case that does not parse goes to `skipped`.

        Args:
            data: a JSON array of cases (protocol/conditions.md#cases); any other JSON value is an empty table.

        Raises:
            DocumentError: the bytes are not JSON within the limits.
        """

    def decide(self, left: bytes, op: str, right: bytes | None) -> bool:
        """Apply one operator to two values.

        Args:
            left: a JSON value.
            op: an operator of protocol/conditions.md#operators.
            right: a JSON value; None where the operator needs none.

        Raises:
            CaseError: `unknown_operator`.
            ConditionError: the operator cannot be applied to the two values; codes as in `CompiledCases.match`.
            DocumentError: one of the values does not parse.
        """

    def evaluate(self, condition: bytes, variables: bytes, data: bytes | None) -> bool:
        """Evaluate one condition without templates.

        Args:
            condition: a JSON object {"left": ..., "op": ..., "right": ...}.
            variables: a JSON object with the variables that a left side may name.
            data: the tool's `data` as JSON; None when the tool returned none.

        Raises:
            CaseError: the condition does not parse.
            ConditionError: the condition cannot be evaluated; `template_reached` if a side has a template.
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
            secrets: texts replaced wherever they occur.
            words: texts replaced only as whole words.
        """

    def find_marks(self, data: bytes) -> int:
        """Return marks of what a JSON text may contain.

        Args:
            data: the text in UTF-8; it need not be JSON.

        Returns:
            The sum of TEMPLATES, REFERENCES and SECRETS. A mark that is not set is certain: the text, and any JSON
            embedded in it, contains nothing of that sort. An escaped ASCII character could hide anything, so its
            presence sets all marks.
        """
