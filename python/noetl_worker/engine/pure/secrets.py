"""The known secrets of one call, and the search for them in texts. Twin: rust/engine/src/secrets.rs."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

MARK: Final = "[REDACTED]"

MIN_SECRET_CHARS: Final = 4
"""Least characters of a known secret to search for. Replacing every "1" would destroy the result, not protect it."""

LONGEST_HEAD: Final = 1_024
"""Number of first characters by which a longer secret is found. All following characters that agree are replaced too.
"""
_FEW: Final = 16
"""Most secrets for which one search per secret is fastest."""
_WORTH_AN_INDEX: Final = 100
"""Number of searches per secret that take as long as building an index. A search of a longer text counts as several."""
_CHARS_OF_A_SEARCH: Final = 512
"""Characters of a text that count as one search."""
_STRIDE: Final = 8
"""Most characters between two samples of a text. A secret is indexed at this many offsets."""
_WIDEST: Final = 8
"""Most characters of a sample."""

_ESCAPE: Final = re.compile(
    r"(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\Z", re.ASCII
)
"""Pattern of escapes that may end in a letter or digit directly before a word, without being a part of that word."""
_LONGEST_ESCAPE: Final = 14
_REFERENCE: Final = "noetl://"
"""Beginning of a reference to a value in the plane's store."""
_LONGEST_REFERENCE: Final = 1024
"""Characters before a secret that are searched for the beginning of a reference."""
_ENDS_REFERENCE: Final = re.compile(r"[^!-~]|[\"'<>\\]")


class Secrets:
    """Known secrets of one call.

    `secrets` are replaced wherever they occur in a value, `words` only as whole words. Nothing is replaced in the
    middle of a key, which is a name (see `is_in_key`), nor inside a reference (`noetl://...`). No pattern is compiled,
    because `re` would keep it, and the secrets in it, as long as the process lives.
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
        """True if a secret has to be replaced wherever it occurs."""
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
        """Return True if a number, written as in a document, is exactly a secret."""
        return bool(self._numbers) and repr(value) in self._numbers

    def is_in_key(self, key: str) -> bool:
        """Return True if a whole key has to be replaced: it is a secret, or contains one that is replaced anywhere."""
        if key in self._all:
            return True
        return self.are_in(key) and any(not _is_in_reference(key, at) for at, _ in self.anywhere_in(key))

    def replace(self, text: str) -> tuple[str, int]:
        """Replace secrets from left to right, the longest one at each place. Return the new text and the number of
        replacements."""
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
        """Yield start and end of each secret that is replaced anywhere, the longest one at each place."""
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
    """Index that finds secrets in a text in time that depends on the text's length alone.

    The secrets are sorted, and each is linked to the longest other secret that it begins with. At a position in the
    text, a binary search finds the last secret that is not sorted after the rest of the text. The longest secret at the
    position is that secret, or a beginning of that secret.
    """

    __slots__ = (
        *("_anywhere", "_depths", "_firsts", "_heads", "_is_anywhere", "_jumps", "_long", "_pieces", "_shorter"),
        *("_stride", "_width", "_within"),
    )

    def __init__(self, secrets: frozenset[str], anywhere: frozenset[str]) -> None:
        self._long = sorted(secret for secret in secrets if len(secret) > LONGEST_HEAD)
        long_heads = {secret[:LONGEST_HEAD] for secret in self._long}
        self._heads = sorted(long_heads.union(secret for secret in secrets if len(secret) <= LONGEST_HEAD))
        # No text contains the LONGEST_HEAD characters of a secret by chance.
        self._is_anywhere = [head in anywhere or head in long_heads for head in self._heads]
        none = [-1] * len(self._heads)
        self._shorter = none[:]
        """Link of each secret to the longest other one that it begins with; -1: none."""
        self._jumps = none[:]
        """Links that skip several links of `_shorter`, so that any secret of a chain is found in a few steps."""
        self._depths = [0] * len(none)
        self._within = none[:]
        """Links from a secret to its longest beginning that is still replaced where the secret itself ends inside a
        word."""
        self._anywhere = none[:]
        """Links from a secret to its longest beginning that is replaced wherever that beginning occurs."""
        self._link()
        shortest = min(map(len, self._heads), default=_STRIDE)
        self._width = width = max(MIN_SECRET_CHARS, min(_WIDEST, shortest // 2))
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
        is_wanted = self._is_anywhere[shorter] or not _goes_on(self._heads[number], len(self._heads[shorter]))
        self._within[number] = shorter if is_wanted else self._within[shorter]

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield each place where a secret begins, and the index of the longest secret there."""
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
        """Return the length of the longest secret at a place that is replaced wherever it occurs; 0 if none is."""
        return self._size(text, at, number if self._is_anywhere[number] else self._anywhere[number])

    def size_to_replace(self, text: str, at: int, number: int) -> int:
        """Return the length of the longest secret that is replaced at a place; 0 if none is."""
        if not self._is_anywhere[number]:
            if _goes_on(text, at) and _ESCAPE.search(text[max(0, at - _LONGEST_ESCAPE) : at]) is None:
                number = self._anywhere[number]
            elif _goes_on(text, at + len(self._heads[number])):
                number = self._within[number]
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


def _goes_on(text: str, at: int) -> bool:
    """Return True if a place is inside a word: between two letters."""
    return 0 < at < len(text) and _is_letter(text[at - 1]) and _is_letter(text[at])


def _is_letter(sign: str) -> bool:
    """Return True if a character is part of words. Ranges are used, so that no version of Unicode matters.

    Letters of scripts without blanks between words (from U+2000) do not count.
    """
    return (sign.isascii() and (sign.isalnum() or sign == "_")) or "\u00c0" <= sign < "\u2000"


def _is_in_reference(text: str, at: int) -> bool:
    """Return True if a place is inside a reference."""
    found = text.rfind(_REFERENCE, max(0, at - _LONGEST_REFERENCE), at + len(_REFERENCE))
    return found >= 0 and _ENDS_REFERENCE.search(text, found, max(found, at)) is None


def without_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs by `?`. A file name in an exception's text may contain some."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
