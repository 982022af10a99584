"""The known secrets of one call, and where they are in a text. Twin: rust/engine/src/secrets.rs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

MARK: Final = "[REDACTED]"

MIN_SECRET_CHARS: Final = 4
"""A shorter known secret is not searched for: replacing every "1" would destroy the result, not protect it."""

_MANY: Final = 200
"""From here on a text is gone through once, for all secrets: one search each costs more (60 ns a secret, at least)."""


_ESCAPE: Final = re.compile(
    r"(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\Z", re.ASCII
)
"""What a letter or digit directly before a word may be the end of, without being a part of that word."""
_LONGEST_ESCAPE: Final = 14
_REFERENCE: Final = "noetl://"
"""The beginning of a reference to a value that the plane keeps."""
_LONGEST_REFERENCE: Final = 1024
"""Characters before a secret that are looked at for the beginning of a reference."""
_ENDS_REFERENCE: Final = re.compile(r"[^!-~]|[\"'<>\\]")


class Secrets:
    """Known secrets of one call. No compiled pattern: `re` would keep it, and the secrets in it, for the process.

    `secrets` are taken out wherever they are in a value, `words` where they are whole words of one. A key is a name,
    and nothing is taken out of the middle of one: see `is_in_key`. Nor out of a reference (`noetl://...`).
    """

    __slots__ = ("_all", "_heads", "_numbers", "_values", "_words")

    def __init__(self, secrets: Sequence[str], words: Sequence[str] = ()) -> None:
        anywhere = _long_enough(secrets)
        self._words = _long_enough(words) - anywhere
        self._all = anywhere | self._words
        self._values = sorted(self._all, key=len, reverse=True)
        self._numbers = frozenset(secret for secret in self._values if secret[0] in "-0123456789")
        self._heads: dict[str, list[str]] = {}

    def are_in(self, text: str) -> bool:
        """Whether a secret is somewhere in a text, be it inside of a word: a quick look before `replace`."""
        if self._go_once_through(text):
            return any(True for _ in self._candidates(text))
        return any(secret in text for secret in self._values)

    def include(self, text: str) -> bool:
        """Whether a text is one of the secrets, and nothing else."""
        return text in self._all

    def include_number(self, value: float) -> bool:
        """Whether a number, as a document has it, is exactly a secret."""
        return bool(self._numbers) and repr(value) in self._numbers

    def is_in_key(self, key: str) -> bool:
        """Whether a key has to go, as a whole: it is a secret, or has one in it that no innocent text has."""
        if key in self._all:
            return True
        return self.are_in(key) and any(secret not in self._words for _, secret in self._places(key))

    def replace(self, text: str) -> tuple[str, int]:
        """Replace from left to right; at one place the longest secret wins. Returns (text, how many)."""
        pieces: list[str] = []
        start = 0
        for at, secret in self._places(text):
            if at < start:
                continue
            pieces.append(text[start:at])
            start = at + len(secret)
        pieces.append(text[start:])
        return MARK.join(pieces), len(pieces) - 1

    def _places(self, text: str) -> list[tuple[int, str]]:
        """Where secrets are taken out, from left to right, the longest first; those that overlap included."""
        if self._go_once_through(text):
            found = [(at, secret) for at, secret in self._candidates(text) if self._goes(text, at, secret)]
        else:
            found = [place for secret in self._values for place in self._each(text, secret)]
        return sorted(found, key=lambda place: (place[0], -len(place[1])))

    def _each(self, text: str, secret: str) -> Iterator[tuple[int, str]]:
        at = text.find(secret)
        while at >= 0:
            if self._goes(text, at, secret):
                yield at, secret
            at = text.find(secret, at + 1)

    def _goes(self, text: str, at: int, secret: str) -> bool:
        is_place = secret not in self._words or _is_whole_word(text, at, secret)
        return is_place and not _is_in_reference(text, at)

    def _go_once_through(self, text: str) -> bool:
        return len(self._values) > _MANY or len(text) < len(self._values)

    def _candidates(self, text: str) -> Iterator[tuple[int, str]]:
        heads = self._heads
        if not heads:
            for secret in self._values:
                heads.setdefault(secret[:MIN_SECRET_CHARS], []).append(secret)
        for at in range(len(text) - MIN_SECRET_CHARS + 1):
            for secret in heads.get(text[at : at + MIN_SECRET_CHARS], ()):
                if text.startswith(secret, at):
                    yield at, secret


def _long_enough(secrets: Sequence[str]) -> frozenset[str]:
    # A piece of the mark looks like the mark.
    return frozenset(
        without_surrogates(secret) for secret in secrets if len(secret) >= MIN_SECRET_CHARS and secret not in MARK
    )


def _is_whole_word(text: str, at: int, secret: str) -> bool:
    """Whether what stands at a place is no part of a longer word. A side where the secret has a sign has no word."""
    end = at + len(secret)
    if end < len(text) and _is_letter(secret[-1]) and _is_letter(text[end]):
        return False
    has_begun = at > 0 and _is_letter(secret[0]) and _is_letter(text[at - 1])
    return not has_begun or _ESCAPE.search(text[max(0, at - _LONGEST_ESCAPE) : at]) is not None


def _is_letter(sign: str) -> bool:
    """What words are made of. By ranges, so that it does not depend on a version of Unicode.

    In scripts without blanks between words (from U+2000) a letter says nothing.
    """
    return (sign.isascii() and (sign.isalnum() or sign == "_")) or "\u00c0" <= sign < "\u2000"


def _is_in_reference(text: str, at: int) -> bool:
    """Whether a place is inside of a reference."""
    found = text.rfind(_REFERENCE, max(0, at - _LONGEST_REFERENCE), at + len(_REFERENCE))
    return found >= 0 and _ENDS_REFERENCE.search(text, found, max(found, at)) is None


def without_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs by `?`: a file name in an exception's text may hold some."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
