"""The interface of an engine: the calls that both engines have, with equal results and equal errors.

A call takes bytes and small values, and returns a frozen value. A call runs no Python function of the caller. After the
call the engine has no reference to the caller's objects. `engine/pure` is the specification; each of its files has a
twin in `rust/engine`.
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
"""Bit of `find_marks`: a text may contain a reference to a field in the result store, or to a keychain entry."""
SECRETS: Final = 4
"""Bit of `find_marks`: a text may contain a key named like a secret, or a URL. A URL may contain a password."""

Side = Literal["left", "right"]


class CaseMatch(NamedTuple):
    """The first case whose conditions all hold."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a match
    """Index of the case, counting only cases that parse. The planes' own workers report the same index."""
    action: CaseAction


class PendingMatch(Protocol):
    """A paused search for the first case that holds. One side of a condition is a template and has to be rendered
    before the search goes on."""

    @property
    def case(self) -> int:
        """Index of the case, counting only cases that parse."""

    @property
    def condition(self) -> int:
        """Index of the condition inside the case."""

    @property
    def side(self) -> Side: ...

    @property
    def template(self) -> JsonValue:
        """The value to render: the text of the left side, or the JSON value of the right side with at least one
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
        """Names of all variables that the left sides of conditions may read, sorted. `match` needs no other
        variables."""

    @property
    def reads_result(self) -> bool:
        """True if the left side of a condition reads the tool's data. If False, `data` of `match` may be None."""

    def __len__(self) -> int: ...

    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | PendingMatch | None:
        """Return the first case whose conditions all hold, or None if there is no such case. Return a pending match if
        a template has to be rendered first.

        Args:
            variables: a JSON object; any other value counts as no variables.
            data: the tool's `data` as JSON; None when the tool returned no data.

        Raises:
            ConditionError: a condition cannot be evaluated (`not_a_number`, `not_numeric`, `invalid_regex`, and
                `regex_unsupported` on the pure engine). The error has the indexes `case` and `condition`.
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
        """Parse a list of cases. A case that does not parse goes to `skipped`.

        Args:
            data: a JSON array of cases (protocol/conditions.md#cases); any other JSON value counts as an empty array.

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
        """Redact a JSON document and measure its size. If the size is over the budget, make a short preview of the
        document.

        Args:
            data: any JSON value.
            rules: the budget in bytes, and the secrets.

        Raises:
            DocumentError: the bytes are not JSON within the limits.
        """

    def redact_text(self, text: str, secrets: Sequence[str], words: Sequence[str] = ()) -> str:
        """Replace secrets in free text: known secrets, texts that look like credentials, and the values of
        `password=...` pairs.

        Args:
            text: any text for people: an error, a line of a log.
            secrets: texts replaced wherever they occur.
            words: texts replaced only as whole words.
        """

    def find_marks(self, data: bytes) -> int:
        """Return bits that tell what a JSON text may contain: templates, references, secrets.

        Args:
            data: the text in UTF-8; it need not be JSON.

        Returns:
            The sum of TEMPLATES, REFERENCES and SECRETS, as far as the text may contain them. If a bit is not set, the
            text and any JSON embedded in it certainly lack that content. An escaped ASCII character sets all bits,
            because it could hide any content.
        """
