"""The known secrets of one call, and where they are in a text. Twin: rust/engine/src/secrets.rs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["MARK", "MIN_SECRET_CHARS", "Secrets", "whole"]

MARK: Final = "[REDACTED]"

MIN_SECRET_CHARS: Final = 4
"""A shorter known secret is not searched for: replacing every "1" would destroy the result, not protect it."""

_MANY: Final = 200
"""From here on a text is gone through once, for all secrets: one search each costs more (60 ns a secret, at least)."""


class Secrets:
    """Known secrets of one call. No compiled pattern: `re` would keep it, and the secrets in it, for the process."""

    __slots__ = ("_heads", "_numbers", "_values")

    def __init__(self, secrets: Sequence[str]) -> None:
        # A piece of the mark cannot be told from the mark.
        long_enough = {whole(secret) for secret in secrets if len(secret) >= MIN_SECRET_CHARS and secret not in MARK}
        self._values = sorted(long_enough, key=len, reverse=True)
        self._numbers = frozenset(secret for secret in self._values if secret[0] in "-0123456789")
        self._heads: dict[str, list[str]] = {}

    def are_in(self, text: str) -> bool:
        if self._go_once_through(text):
            return self._first(text, 0) is not None
        return any(secret in text for secret in self._values)

    def include_number(self, value: float) -> bool:
        """Whether a number, as a document has it, is exactly a secret."""
        return bool(self._numbers) and repr(value) in self._numbers

    def replace(self, text: str) -> tuple[str, int]:
        """Replace from left to right; at one place the longest secret wins. Returns (text, how many)."""
        pieces: list[str] = []
        start = 0
        while (found := self._next(text, start)) is not None:
            at, secret = found
            pieces.append(text[start:at])
            start = at + len(secret)
        pieces.append(text[start:])
        return MARK.join(pieces), len(pieces) - 1

    def _next(self, text: str, start: int) -> tuple[int, str] | None:
        if self._go_once_through(text):
            return self._first(text, start)
        # min() takes the first of equal places, and longer secrets come first.
        found = [(at, secret) for secret in self._values if (at := text.find(secret, start)) >= 0]
        return min(found, key=lambda place: place[0]) if found else None

    def _go_once_through(self, text: str) -> bool:
        return len(self._values) > _MANY or len(text) < len(self._values)

    def _first(self, text: str, start: int) -> tuple[int, str] | None:
        heads = self._heads
        if not heads:
            for secret in self._values:
                heads.setdefault(secret[:MIN_SECRET_CHARS], []).append(secret)
        for at in range(start, len(text) - MIN_SECRET_CHARS + 1):
            for secret in heads.get(text[at : at + MIN_SECRET_CHARS], ()):
                if text.startswith(secret, at):
                    return at, secret
        return None


def whole(text: str) -> str:
    """Replace halves of surrogate pairs by `?`: a file name in an exception's text may hold some."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
