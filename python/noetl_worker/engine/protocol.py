"""The interface of the Rust engine and the Python engine. Both have the same functions, results and errors.

A function takes bytes and small values, and returns an immutable value. It calls no Python function of the caller, and
keeps no reference to the caller's objects. The Python engine in `engine/pure` is the specification; each of its files
has a counterpart in `rust/engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from noetl_worker.models.case import CaseAction, SkippedCase
from noetl_worker.models.fit import FitRules, FittedResult
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import JsonValue

MAX_DEPTH: Final = 512
"""Largest nesting depth of a JSON document that the engine parses. Above it, DocumentError `json_depth` is raised."""

MAX_INTEGER_DIGITS: Final = 4_300
"""Largest number of digits of a JSON integer, as in CPython. Above it, DocumentError `json_number` is raised."""

TEMPLATES: Final = 1
"""Bit in the result of `Engine.find_marks`: the searched text may contain a template (`{{`, `{%` or `{#`)."""
REFERENCES: Final = 2
"""Bit in the result of `Engine.find_marks`: the searched text may refer to the result store or to a keychain entry."""
SECRETS: Final = 4
"""Bit in the result of `Engine.find_marks`: the searched text may contain a secret.

It has a key named like a secret, or a URL, which may contain a password.
"""

Side = Literal["left", "right"]


class CaseMatch(NamedTuple):
    """Result of a search in a list of cases: the first case (a `when`/`then`) whose conditions all hold."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a match
    """Index of the case in the list without invalid cases. The planes' own workers report the same index."""
    action: CaseAction


class PendingMatch(Protocol):
    """A paused search for the first case that holds. One side of a condition is a template and has to be rendered
    before the search goes on."""

    @property
    def case(self) -> int:
        """Index of the case at which the search has paused, counted without the step's invalid cases."""

    @property
    def condition(self) -> int:
        """Index of the condition at which the search has paused, in the case's list `when`."""

    @property
    def side(self) -> Side: ...

    @property
    def template(self) -> JsonValue:
        """Template to render before the search can continue: the left string or the right JSON value of the condition
        at which the search has paused."""

    def resume(self, rendered: bytes) -> CaseMatch | PendingMatch | None:
        """Go on with the paused search, using the rendered value. A pending match may be resumed any number of times.

        Args:
            rendered: the value that `template` rendered to, as compact JSON.

        Returns:
            The first case that holds, None without such a case, or another pending match.

        Raises:
            DocumentError: `rendered` is not JSON.
            ConditionError: see `CompiledCases.match`.
        """


class CompiledCases(Protocol):
    """A parsed list of `when`/`then` cases, which can be searched any number of times for the first case that holds."""

    @property
    def skipped(self) -> tuple[SkippedCase, ...]:
        """The list's elements that are not valid cases, each with its index in the original list and the reason."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Sorted names of all variables that conditions may read. Callers of `match` need not pass other variables."""

    @property
    def reads_result(self) -> bool:
        """True if a condition reads the tool's data. If False, the caller of `match` may pass None as `data`."""

    def __len__(self) -> int: ...

    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | PendingMatch | None:
        """Return the first case whose conditions all hold, or None if there is no such case. Return a pending match if
        a template has to be rendered first.

        Args:
            variables: a JSON object; any other value counts as no variables.
            data: the tool's `data` as JSON; None when the tool returned no data.

        Raises:
            ConditionError: a condition cannot be evaluated (`not_a_number`, `not_numeric`, `invalid_regex`, and
                `regex_unsupported` on the Python engine). The error has the indexes `case` and `condition`.
            DocumentError: one of the documents does not parse.
        """


class Engine(Protocol):
    """Interface of the two engine modules, `noetl_worker.engine.pure.lib` (Python) and `noetl_worker._core` (Rust).

    Their functions decode notifications, evaluate cases and redact secrets.
    """

    def decode_notification(self, data: bytes) -> Envelope:
        """Decode a command notification.

        Args:
            data: the payload of the message (protocol/notification.md#message).

        Raises:
            NotificationError: with a code of DocumentError, or `not_an_object`, `missing_field`, `wrong_type`,
                `empty_field`, `out_of_range`.
        """

    def compile_cases(self, data: bytes) -> CompiledCases:
        """Parse a list of cases, to be matched later. A case that does not parse goes to `CompiledCases.skipped`.

        Args:
            data: a JSON array of cases (protocol/conditions.md#cases); any other JSON value counts as an empty array.

        Raises:
            DocumentError: `data` is not JSON, or is above a limit such as MAX_DEPTH.
        """

    def decide(self, left: bytes, op: str, right: bytes | None) -> bool:
        """Apply a condition's operator, such as `eq` or `contains`, to two JSON values, and return whether it holds.

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
        """Evaluate one condition, which must contain no template. Return whether it holds.

        Args:
            condition: a JSON object {"left": ..., "op": ..., "right": ...}.
            variables: a JSON object with the variables that a left side may name.
            data: the tool's `data` as JSON; None when the tool returned no data.

        Raises:
            CaseError: the condition does not parse.
            ConditionError: the condition cannot be evaluated; `template_reached` if a side has a template.
            DocumentError: one of the documents does not parse.
        """

    def fit_result(self, data: bytes, rules: FitRules) -> FittedResult:
        """Redact a tool's result and measure its size. If it is too large for an event, make a short preview too.

        Args:
            data: the tool's result, as JSON text in UTF-8.
            rules: the largest size in bytes of a result inside an event, and the secrets.

        Raises:
            DocumentError: `data` is not JSON, or is above a limit such as MAX_DEPTH.
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
