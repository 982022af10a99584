"""The known secrets that one call of a redaction function replaces, and the search for these secrets in texts.

Rust counterpart: rust/engine/src/secrets.rs.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

MARK: Final = "[REDACTED]"

MIN_SECRET_CHARS: Final = 4
"""Length of the shortest secret that is searched for, in characters. Replacing every "1" would destroy the result, not
protect it."""

LONGEST_HEAD: Final = 1_024
"""Number of characters at the beginning of a long secret that are searched for. Wherever they are found, all further
characters that agree with the secret are replaced too."""
_FEW: Final = 16
"""Largest number of secrets for which one search per secret is faster than an index."""
_WORTH_AN_INDEX: Final = 100
"""Number of searches, one secret at a time, before an index is built. Building the index takes about as long as these
searches. A long text counts as several searches."""
_CHARS_OF_A_SEARCH: Final = 512
"""Number of characters that count as one search (`_WORTH_AN_INDEX`). A longer text counts as several searches, because
searching the text takes longer."""
_STRIDE: Final = 8
"""Step, in characters, at which a search for secrets takes short samples of a text and looks them up in an index. The
index has the samples at the first `_STRIDE` offsets of each secret, so one sample inside a secret is always found."""
_MAX_SAMPLE_CHARS: Final = 8
"""Largest length, in characters, of the short samples of a text that are looked up in the index of secrets (see
`_STRIDE`)."""

_ESCAPE: Final = re.compile(
    r"(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\Z", re.ASCII
)
"""Pattern of an escape, such as `\\n`, directly before a word. The last letter or digit of the escape is not a part of
the word."""
_LONGEST_ESCAPE: Final = 14
_REFERENCE: Final = "noetl://"
"""Beginning of a reference to a value in the plane's store."""
_LONGEST_REFERENCE: Final = 1024
"""Number of characters before a found secret that are searched for the beginning of a reference. A secret inside a
reference is not replaced."""
_ENDS_REFERENCE: Final = re.compile(r"[^!-~]|[\"'<>\\]")


class Secrets:
    """The known secrets that one call of a redaction function replaces.

    `secrets` are replaced wherever they occur in a value, `words` only as whole words. A key is replaced as a whole or
    not at all (see `is_in_key`). A reference (`noetl://...`) is not changed. This class compiles no pattern: `re` would
    cache the pattern, and the secrets in it, as long as the process lives.
    """

    __slots__ = ("_all", "_anywhere", "_heads", "_index", "_numbers", "_searches")

    def __init__(self, secrets: Sequence[str], words: Sequence[str] = ()) -> None:
        self._anywhere = _long_enough(secrets)
        self._all = self._anywhere | _long_enough(words)
        self._heads = {secret[:LONGEST_HEAD] for secret in self._all}
        self._numbers = frozenset(secret for secret in self._all if secret[0] in "-0123456789")
        self._searches = 0
        self._index: _Index | None = None

    @property
    def are_anywhere(self) -> bool:
        """True if at least one secret is replaced wherever it occurs, and not only as a whole word."""
        return bool(self._anywhere)

    def and_anywhere(self, more: set[str]) -> Secrets:
        """Return a copy with the texts `more` added as secrets that are replaced wherever they occur."""
        return Secrets((*self._anywhere, *more), tuple(self._all))

    def are_in(self, text: str) -> bool:
        """Return True if a secret is anywhere in a text, even inside a word. This is a quick check before `replace`."""
        if len(self._heads) > _FEW:
            self._searches += 1 + len(text) // _CHARS_OF_A_SEARCH
            if self._index is not None or self._searches > _WORTH_AN_INDEX:
                return next(self._indexed().places(text), None) is not None
        return any(head in text for head in self._heads)

    def include(self, text: str) -> bool:
        """Return True if the whole text is one of the secrets."""
        return text in self._all

    def include_number(self, value: float) -> bool:
        """Return True if a number, written as in JSON, is exactly one of the secrets."""
        return bool(self._numbers) and repr(value) in self._numbers

    def is_in_key(self, key: str) -> bool:
        """Return True if a key of a JSON object has to be redacted as a whole. Such a key is a secret, or contains a
        secret that is redacted even inside words."""
        if key in self._all:
            return True
        return self.are_in(key) and any(not _is_in_reference(key, at) for at, _ in self.anywhere_in(key))

    def replace(self, text: str) -> tuple[str, int]:
        """Replace the secrets in a text from left to right. At each position the longest secret is replaced. Return the
        new text and the number of replacements."""
        pieces: list[str] = []
        start = 0
        index = self._indexed()
        for at, number in index.places(text):
            if at < start or _is_in_reference(text, at):
                continue
            size = index.size_to_replace(text, at, number)
            if size:
                pieces.append(text[start:at])
                start = at + size
        pieces.append(text[start:])
        return MARK.join(pieces), len(pieces) - 1

    def anywhere_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of each match of a secret that is replaced wherever it occurs. At each position only the
        longest such secret is matched."""
        if not self.are_in(text):
            return
        index, after_long = self._indexed(), 0
        for at, number in index.places(text):
            if at >= after_long and (size := index.size_anywhere(text, at, number)):
                after_long = at + size if size > LONGEST_HEAD else 0
                yield at, at + size

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(self._all, self._anywhere)
        return self._index


class _Index:
    """Index for the search of secrets in a text. The number of secrets hardly changes the time of a search.

    The secrets are in a sorted list. Each secret has a link to the longest other secret that is its prefix. For a
    position in a text, a binary search finds the place of the remaining text in this list. The longest secret at the
    position is the entry just before this place, or a prefix of this entry.
    """

    __slots__ = (
        *("_anywhere", "_depths", "_firsts", "_heads", "_is_anywhere", "_jumps", "_long", "_pieces", "_shorter"),
        *("_stride", "_width", "_if_inside_word"),
    )

    def __init__(self, secrets: frozenset[str], anywhere: frozenset[str]) -> None:
        self._long = sorted(secret for secret in secrets if len(secret) > LONGEST_HEAD)
        long_heads = {secret[:LONGEST_HEAD] for secret in self._long}
        self._heads = sorted(long_heads.union(secret for secret in secrets if len(secret) <= LONGEST_HEAD))
        # No text contains the LONGEST_HEAD characters of a secret by chance.
        self._is_anywhere = [head in anywhere or head in long_heads for head in self._heads]
        none = [-1] * len(self._heads)
        self._shorter = none[:]
        """List with one entry per secret: the index of the longest other secret that is its prefix, or -1."""
        self._jumps = none[:]
        """List with one entry per secret: the index of another secret that is its prefix, or -1. The prefix may be
        much shorter. So a search for a prefix in a long chain of ever shorter prefixes (`_shorter`) takes few steps."""
        self._depths = [0] * len(none)
        self._if_inside_word = none[:]
        """List with one entry per secret: the index of another secret that is its prefix, or -1. The prefix is replaced
        where the secret itself must not be replaced, because the secret ends inside a word."""
        self._anywhere = none[:]
        """List with one entry per secret: the index of the longest prefix that is itself a secret and is replaced even
        inside words, or -1. The prefix is replaced where the secret itself must not be replaced, because the secret
        begins inside a word."""
        self._link()
        shortest = min(map(len, self._heads), default=_STRIDE)
        self._width = width = max(MIN_SECRET_CHARS, min(_MAX_SAMPLE_CHARS, shortest // 2))
        self._stride = min(_STRIDE, shortest - width + 1)
        self._firsts = {head[:MIN_SECRET_CHARS] for head in self._heads}
        self._pieces = {head[at : at + width] for at in range(self._stride) for head in self._heads}

    def _link(self) -> None:
        heads, links = self._heads, self._shorter
        for number, head in enumerate(heads):
            shorter = number - 1
            while shorter >= 0 and not head.startswith(heads[shorter]):
                shorter = links[shorter]
            if shorter >= 0:
                links[number] = shorter
                self._link_to(number, shorter)

    def _link_to(self, number: int, shorter: int) -> None:
        depths, far = self._depths, self._jumps[shorter]
        farther = self._jumps[far] if far >= 0 else -1
        is_even = far >= 0 and depths[shorter] - depths[far] == depths[far] - (depths[farther] if farther >= 0 else -1)
        depths[number], self._jumps[number] = depths[shorter] + 1, farther if is_even else shorter
        self._anywhere[number] = shorter if self._is_anywhere[shorter] else self._anywhere[shorter]
        is_wanted = self._is_anywhere[shorter] or not _is_inside_word(self._heads[number], len(self._heads[shorter]))
        self._if_inside_word[number] = shorter if is_wanted else self._if_inside_word[shorter]

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield each position in the text at which a secret begins, and the index of the longest secret there."""
        stride, width, pieces, firsts = self._stride, self._width, self._pieces, self._firsts
        for looked in range(0, len(text) - width + 1, stride):
            if text[looked : looked + width] not in pieces:
                continue
            for at in range(max(0, looked - stride + 1), looked + 1):
                if text[at : at + MIN_SECRET_CHARS] in firsts:
                    number = self._longest(text[at : at + LONGEST_HEAD])
                    if number >= 0:
                        yield at, number

    def _longest(self, text: str) -> int:
        heads = self._heads
        number = bisect_right(heads, text) - 1
        while number >= 0 and not text.startswith(heads[number]):
            jump = self._jumps[number]
            number = jump if jump >= 0 and not text.startswith(heads[jump]) else self._shorter[number]
        return number

    def size_anywhere(self, text: str, at: int, number: int) -> int:
        """Return the length of the longest secret at position `at` that is replaced even inside words. Return 0 if no
        such secret is there.

        Args:
            number: index of the longest secret at `at`, including the secrets that are replaced only as whole words.
        """
        return self._size(text, at, number if self._is_anywhere[number] else self._anywhere[number])

    def size_to_replace(self, text: str, at: int, number: int) -> int:
        """Return the length of the secret to replace at position `at`, or 0 if no secret is to be replaced there.
        `number` is the index of the longest secret there."""
        if not self._is_anywhere[number]:
            if _is_inside_word(text, at) and _ESCAPE.search(text[max(0, at - _LONGEST_ESCAPE) : at]) is None:
                number = self._anywhere[number]
            elif _is_inside_word(text, at + len(self._heads[number])):
                number = self._if_inside_word[number]
        return self._size(text, at, number)

    def _size(self, text: str, at: int, number: int) -> int:
        size = len(self._heads[number]) if number >= 0 else 0
        if size < LONGEST_HEAD or not self._long:
            return size
        rest = text[at : at + max(map(len, self._long))]
        near = bisect_left(self._long, rest)
        return max(size, *(_common_size(rest, long) for long in self._long[max(0, near - 1) : near + 1]))


def _common_size(one: str, other: str) -> int:
    """Return the number of characters that two texts have in common at their beginning."""
    size, step = 0, min(len(one), len(other))
    while step:
        if one[size : size + step] == other[size : size + step]:
            size += step
            step = min(step, len(one) - size, len(other) - size)
        else:
            step //= 2
    return size


def _long_enough(secrets: Sequence[str]) -> frozenset[str]:
    # A secret that is a part of the mark would be found in every mark.
    return frozenset(
        without_surrogates(secret) for secret in secrets if len(secret) >= MIN_SECRET_CHARS and secret not in MARK
    )


def _is_inside_word(text: str, at: int) -> bool:
    """Return True if position `at` is inside a word: the characters before and after it belong to words."""
    return 0 < at < len(text) and _is_letter(text[at - 1]) and _is_letter(text[at])


def _is_letter(sign: str) -> bool:
    """Return True if a character can be part of a word. The check uses fixed ranges, so that the version of Unicode
    does not matter.

    Letters of scripts without blanks between words (from U+2000) do not count.
    """
    return (sign.isascii() and (sign.isalnum() or sign == "_")) or "\u00c0" <= sign < "\u2000"


def _is_in_reference(text: str, at: int) -> bool:
    """Return True if position `at` is inside a reference (`noetl://...`)."""
    found = text.rfind(_REFERENCE, max(0, at - _LONGEST_REFERENCE), at + len(_REFERENCE))
    return found >= 0 and _ENDS_REFERENCE.search(text, found, max(found, at)) is None


def without_surrogates(text: str) -> str:
    """Return `text` with `?` in place of lone surrogates. A file name in an exception's text may contain some."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
