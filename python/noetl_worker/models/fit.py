"""Rules for redacting a tool's result and limiting its size so that it fits into an event, and the fitted result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class SecretTexts:
    """Secret texts to redact, in three groups by strength (`text/secrets/strength.py`). A stronger secret is replaced
    in more places."""

    anywhere: tuple[str, ...] = ()
    """Secrets replaced wherever they occur, even inside a word."""
    words: tuple[str, ...] = ()
    """Secrets replaced only as whole words. A key of a JSON object is replaced only if the whole key is the secret."""
    message_words: tuple[str, ...] = ()
    """Secrets replaced only as whole words, and only in messages for people."""

    @property
    def data_texts(self) -> tuple[str, ...]:
        return self.anywhere + self.words

    @property
    def all(self) -> tuple[str, ...]:
        return self.data_texts + self.message_words

    @property
    def message_texts(self) -> tuple[str, ...]:
        """Secrets replaced as whole words in a message for people: `words` and `message_words`."""
        return self.words + self.message_words


LESS_ADVICE: Final = (
    "let the step return less, or put it into a file, an object store or an artifact and return its address"
)
"""Advice in error messages about a result that is too large to be passed to a later command."""
MAX_RESULT_BYTES: Final = 64 << 20
"""Largest size of a stored result, in bytes. A later command receives a stored result as one whole HTTP answer."""
_ENVELOPE_BYTES: Final = 512
"""Bytes reserved in an event for data around the fitted result: the enclosing object and the command id."""


@dataclass(slots=True)  # not frozen: one is made per command, and freezing costs time
class FitRules:
    """Rules for the function `fit_result`, which redacts a result and limits its size so that it fits into an event."""

    max_bytes: int = 102_400
    """Largest size of a result inside an event: bytes of its compact JSON, inclusive (protocol/results.md#limits)."""
    preview_bytes: int = 4_096
    preview_depth: int = 8
    secrets: tuple[str, ...] = ()
    """Known secret values, replaced wherever they appear."""
    secret_words: tuple[str, ...] = ()
    """Known secret values, replaced only as whole words and never inside a key."""
    message_words: tuple[str, ...] = ()
    """Known secret values, replaced only in messages for people (errors, reasons). `fit_result` ignores them."""
    most_bytes: int = MAX_RESULT_BYTES
    """Size in bytes of the largest result that may be stored. A larger result fails its step."""

    @classmethod
    def for_secrets(cls, known: SecretTexts, *, max_bytes: int, most_bytes: int = MAX_RESULT_BYTES) -> FitRules:
        """Return the rules for redacting and limiting the result of one command.

        Args:
            known: the command's secrets.
            max_bytes: largest size in bytes of a result inside an event, together with the object around the result.
            most_bytes: largest size in bytes of a result in the result store.
        """
        return cls(
            max_bytes - _ENVELOPE_BYTES,
            secrets=known.anywhere,
            secret_words=known.words,
            message_words=known.message_words,
            most_bytes=most_bytes,
        )


class FittedResult(NamedTuple):
    """A result that was redacted and measured in one pass."""

    body: bytes
    """The result as compact JSON, without secrets."""
    size: int
    """Size of `body` in bytes."""
    redactions: int
    """Number of secrets that were replaced."""
    preview: bytes | None
    """Short JSON summary of a result that is too large for an event. None if the result itself fits."""
