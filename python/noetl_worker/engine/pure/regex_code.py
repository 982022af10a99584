"""The instructions of a regular expression, built from pieces, and an estimate of the compiled size in the `regex`
crate. The estimate tells whether the crate would refuse the pattern as too large.

Rust counterpart: the NFA compiler of the `regex` crate. Jumps are relative, so a counted repetition consists of copies
of one piece. `size` is the size in bytes of the crate's reverse program plus captures. The crate has a forward and a
reverse program, and the reverse program is larger for classes beyond ASCII. `size` may be wrong by some per cent,
because the crate knows newer characters than an older Python.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, TypeAlias

from noetl_worker.engine.pure.code_points import normalized

SIZE_LIMIT: Final = 10 * 2**20
SURE_SIZE: Final = SIZE_LIMIT * 4 // 5
"""Largest size in bytes that this module may compute for a pattern with classes, such as `\\w`. The pattern is then
within the `regex` crate's limit, although the crate's newer Unicode tables make classes larger than this Python's: by
at most 21 % (`\\p{Lm}`) since Python 3.10."""
_STATE, _EDGE, _BRANCH = 32, 8, 4  # bytes of a state, of an entry in a byte table, of a branch of a fork
_LAST_ALIKE: Final = (0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF)
"""Last character of each range in which all characters have the same length in UTF-8. Surrogates are a range of their
own."""


class Chars:
    """An instruction that matches one character of a set."""

    __slots__ = ("bounds", "ranges")

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.ranges = tuple(ranges)
        self.bounds = [bound for low, high in ranges for bound in (low, high + 1)]

    def __contains__(self, char: str) -> bool:
        return bisect_right(self.bounds, ord(char)) % 2 == 1

    def only_character(self) -> str:
        """Return the only character that this instruction matches, or "" if the set does not have exactly one
        character."""
        return chr(self.ranges[0][0]) if len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1] else ""


Code: TypeAlias = list["Chars | str | tuple[int, ...]"]
"""List of instructions. A `Chars` matches one character. A string, such as "line start", is an assertion that must
hold. A tuple is a fork: the search continues at each of its relative distances."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a pattern: its instructions, its nesting depth, and its size in bytes in the `regex` crate's
    program."""

    code: Code
    depth: int = 0
    size: int = _STATE


def one_of(ranges: Sequence[tuple[int, int]]) -> Piece:
    """Return a piece of a pattern that matches one character of a set. The set's ranges are sorted and joined."""
    return _one_of(tuple(ranges))


@lru_cache(maxsize=128)
def _one_of(ranges: tuple[tuple[int, int], ...]) -> Piece:
    chars = Chars(ranges)
    return Piece([chars], 0, _set_size(chars))


def literal_head(code: Code) -> str:
    """Return the text that every match of `code` begins with: the single characters at the beginning of `code`."""
    chars = ((step.only_character() if isinstance(step, Chars) else "") for step in code)
    return "".join(takewhile(bool, chars))


def captured(piece: Piece) -> Piece:
    return Piece(piece.code, piece.depth, piece.size + 2 * _STATE)


def row(pieces: Sequence[Piece]) -> Piece:
    """Return a piece of a pattern that matches `pieces` one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    depth = max((piece.depth for piece in pieces), default=-1) + 1
    size = sum(piece.size for piece in pieces) or _STATE
    code: Code = []
    for piece in pieces:
        code += piece.code
    return Piece(code, depth, size)


def alternatives(pieces: Sequence[Piece]) -> Piece:
    """Return a piece of a pattern that matches any one of `pieces`."""
    if len(pieces) == 1:
        return pieces[0]
    depth = max(piece.depth for piece in pieces) + 1
    sets = [set_ for set_ in map(_bare_set, pieces) if set_]
    if len(sets) == len(pieces):  # the crate joins them to one set too
        joined = one_of(normalized([pair for chars in sets for pair in chars.ranges]))
        return Piece(joined.code, depth, joined.size)
    end = 1 + sum(len(piece.code) + 1 for piece in pieces)
    starts: list[int] = []
    body: Code = []
    for piece in pieces:
        starts.append(1 + len(body))
        body += piece.code
        body.append((end - 1 - len(body),))
    size = sum(piece.size for piece in pieces)
    words = [word for word in map(_bare_word, pieces) if word]
    if len(words) == len(pieces):
        backwards = [word[::-1] for word in words]
        size = max(size, _words_size(words), _words_size(backwards))  # at least the size of our own code without a trie
    else:
        size += 2 * _STATE + len(pieces) * _BRANCH
    return Piece([tuple(starts), *body], depth, size)


def _bare_set(piece: Piece) -> Chars | None:
    """Return the instruction of a piece that matches exactly one character. Return None for any other piece, and for a
    capturing group."""
    only = piece.code[0] if len(piece.code) == 1 else None
    return only if isinstance(only, Chars) and piece.size == one_of(only.ranges).size else None


def _bare_word(piece: Piece) -> bytes:
    """Return the UTF-8 bytes of the only string that a piece matches. Return b"" for any other piece, and for a
    capturing group."""
    word = literal_head(piece.code)
    encoded = word.encode("utf-8", "surrogatepass") if len(word) == len(piece.code) else b""
    return encoded if piece.size == _STATE * len(encoded) else b""


def repeated(piece: Piece, low: int, high: int | None) -> Piece | None:
    """Return a piece that matches `piece` `low` to `high` times (None: no upper limit). Return None if the piece would
    exceed the size limit."""
    if not any(isinstance(step, Chars) for step in piece.code):  # the piece takes no character: once is enough
        low, high = min(low, 1), 1 if high is None else min(high, 1)
    code, length, fork = piece.code, len(piece.code), _STATE + 2 * _BRANCH
    optional = 0 if high is None else high - low
    size = low * piece.size + optional * (piece.size + fork) + _STATE * (optional > 0)
    if high is None:
        size += fork + (0 if low else piece.size)
    if size > SIZE_LIMIT:
        return None
    repeated_code = code * low
    if high is not None:
        end = optional * (length + 1)
        for _ in range(optional):
            repeated_code.append((1, end))
            repeated_code += code
            end -= length + 1
    elif low:
        repeated_code.append((-length, 1))
    else:
        repeated_code = [(1, length + 2), *code, (-length - 1,)]
    return Piece(repeated_code, piece.depth + 1, max(size, _STATE))


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────


def _set_size(chars: Chars) -> int:
    only = chars.only_character()
    if only:
        return _STATE * len(only.encode("utf-8", "surrogatepass"))
    if not chars.ranges:
        return _STATE
    if chars.ranges[-1][1] < 0x80:
        return 2 * _STATE + _EDGE * len(chars.ranges)
    rows = [encoded for low, high in chars.ranges for encoded in _encoded(low, high)]
    heads = {encoded[:length] for encoded in rows for length in range(1, len(encoded) + 1)}
    return 2 * _STATE + _BRANCH * len(rows) + _STATE * len(heads)


def _words_size(words: list[bytes]) -> int:
    """Return the size in bytes that alternative words take in the `regex` crate. The crate builds a trie with one fork
    for each prefix of a word."""
    beginnings: list[dict[int, Any]] = [{}]
    for word in words:
        beginning = beginnings[0]
        for byte in word:
            if byte not in beginning:
                beginning[byte] = {}
                beginnings.append(beginning[byte])
            beginning = beginning[byte]
    forks = [len(beginning) for beginning in beginnings if beginning]
    return _STATE + sum(2 * _STATE + _BRANCH + (_EDGE * letters if letters > 1 else 0) for letters in forks)


def _encoded(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield sequences of byte ranges. Together the sequences match the UTF-8 encoding of each character from `low` to
    `high`."""
    cut = next(_cuts(low, high), None)
    if cut is not None:
        yield from _encoded(low, cut)
        yield from _encoded(cut + 1, high)
    elif not 0xD800 <= low <= 0xDFFF:
        yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))


def _cuts(low: int, high: int) -> Iterator[int]:
    """Yield code points after which the range from `low` to `high` must be split. The UTF-8 encoding of each part is
    then one sequence of byte ranges."""
    yield from (last for last in _LAST_ALIKE if low <= last < high)
    for bits in (6, 12, 18) if low >= 0x80 else ():
        rest = (1 << bits) - 1
        if low >> bits != high >> bits and low & rest:
            yield low | rest
        elif low >> bits != high >> bits and high & rest != rest:
            yield (high & ~rest) - 1
