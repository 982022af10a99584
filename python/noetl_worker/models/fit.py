"""How a result is fitted to an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class SecretTexts:
    """The secret texts that are looked for in what leaves, by where they are taken out (`secrets.strength`)."""

    anywhere: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Where they are whole words, and never inside of a key."""
    message_words: tuple[str, ...] = ()
    """The same, in texts for people only."""

    @property
    def in_data(self) -> tuple[str, ...]:
        return self.anywhere + self.words

    @property
    def all(self) -> tuple[str, ...]:
        return self.in_data + self.message_words

    @property
    def in_messages(self) -> tuple[str, ...]:
        """Those that are looked for as whole words in a text for people."""
        return self.words + self.message_words


LESS_ADVICE: Final = (
    "let the step return less, or put it into a file, an object store or an artifact and return its address"
)
"""Advice on a result that no later command can be given."""
MAX_RESULT_BYTES: Final = 64 << 20
"""Size of the largest result: a command reads it in one answer."""
_ENVELOPE_BYTES: Final = 512
"""Room for what an event puts around the fitted result: the wrapper object and the command id."""


@dataclass(slots=True)  # not frozen, as ToolResult
class FitRules:
    """How a result is fitted to an event (engine call `fit_result`)."""

    max_bytes: int = 102_400
    """Inclusive budget of the compact JSON, in bytes (protocol/results.md#limits)."""
    preview_bytes: int = 4_096
    preview_depth: int = 8
    secrets: tuple[str, ...] = ()
    """Known secret values, replaced wherever they appear."""
    secret_words: tuple[str, ...] = ()
    """Known secret values that are replaced where they are whole words, and never inside of a key."""
    message_words: tuple[str, ...] = ()
    """The same for texts for people only (errors, reasons): `fit_result` does not look for them."""
    most_bytes: int = MAX_RESULT_BYTES
    """Size of the largest result that may be stored; more fails its step."""

    @classmethod
    def of(cls, known: SecretTexts, *, max_bytes: int, most_bytes: int = MAX_RESULT_BYTES) -> FitRules:
        """The rules for a command's secrets.

        Args:
            known: those secrets, by where they are taken out.
            max_bytes: of the result in its event, with what is put around it.
            most_bytes: of the result wherever it is.
        """
        return cls(
            max_bytes - _ENVELOPE_BYTES,
            secrets=known.anywhere,
            secret_words=known.words,
            message_words=known.message_words,
            most_bytes=most_bytes,
        )


class FittedResult(NamedTuple):
    """A result after one pass of redaction and measuring."""

    body: bytes
    """Compact JSON, redacted."""
    size: int
    redactions: int
    preview: bytes | None
    """A bounded summary, only when `size` is over the budget."""
