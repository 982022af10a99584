"""Character classes of regular expressions, as sorted ranges of code points, equal to those of Rust's `regex` crate."""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_left
from functools import lru_cache
from itertools import groupby
from typing import Final, TypeAlias

Ranges: TypeAlias = list[tuple[int, int]]

_LAST: Final = sys.maxunicode
_SPACE: Final[Ranges] = [
    (0x09, 0x0D),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
]
# Word characters outside the general categories of words: joiners and the enclosed letters (Other_Alphabetic).
_MORE_WORD: Final[Ranges] = [
    (0x200C, 0x200D),
    (0x24B6, 0x24E9),
    (0x1F130, 0x1F149),
    (0x1F150, 0x1F169),
    (0x1F170, 0x1F189),
]
_POSIX: Final[dict[str, Ranges]] = {
    "alnum": [(0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)],
    "alpha": [(0x41, 0x5A), (0x61, 0x7A)],
    "ascii": [(0x00, 0x7F)],
    "blank": [(0x09, 0x09), (0x20, 0x20)],
    "cntrl": [(0x00, 0x1F), (0x7F, 0x7F)],
    "digit": [(0x30, 0x39)],
    "graph": [(0x21, 0x7E)],
    "lower": [(0x61, 0x7A)],
    "print": [(0x20, 0x7E)],
    "punct": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    "space": [(0x09, 0x0D), (0x20, 0x20)],
    "upper": [(0x41, 0x5A)],
    "word": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "xdigit": [(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
}
_ASSIGNED: Final = (range(0x40000), range(0xE0000, 0xE1000))
"""Ranges of code points whose Unicode categories are looked up. All other code points are private or unassigned."""
_PRIVATE_PLANES: Final[Ranges] = [(0xF0000, 0xFFFFD), (0x100000, 0x10FFFD)]
_CASED_BESIDE_LETTERS: Final[Ranges] = [(0x345, 0x345), (0x2160, 0x217F), (0x24B6, 0x24E9)]
_FOLDED_ALIKE: Final = {0x1FD3: 0x390, 0x1FE3: 0x3B0, 0xFB05: 0xFB06}
"""Code points (key and value) that match regardless of case, although Python's `casefold` gives different results.
"""
_POSIX_CLASS: Final = re.compile(r"\[:(\^?)([a-z]+):\]")
_CATEGORIES: Final = (
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
)  # fmt: skip
_LONG_NAMES: Final = {
    "letter": "L", "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm",
    "otherletter": "Lo", "casedletter": "LC", "mark": "M", "nonspacingmark": "Mn", "spacingmark": "Mc",
    "enclosingmark": "Me", "number": "N", "decimalnumber": "Nd", "letternumber": "Nl", "othernumber": "No",
    "punctuation": "P", "connectorpunctuation": "Pc", "dashpunctuation": "Pd", "openpunctuation": "Ps",
    "closepunctuation": "Pe", "initialpunctuation": "Pi", "finalpunctuation": "Pf", "otherpunctuation": "Po",
    "symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc", "modifiersymbol": "Sk", "othersymbol": "So",
    "separator": "Z", "spaceseparator": "Zs", "lineseparator": "Zl", "paragraphseparator": "Zp", "control": "Cc",
    "cntrl": "Cc", "format": "Cf", "privateuse": "Co", "unassigned": "Cn", "other": "C", "digit": "Nd",
}  # fmt: skip


def normalized(ranges: Ranges) -> Ranges:
    """Return the ranges sorted, with overlapping and adjacent ranges joined."""
    joined: Ranges = []
    start, end = -1, -2
    for low, high in sorted(ranges):
        if low > end + 1:
            joined.append((start, end))
            start, end = low, high
        elif high > end:
            end = high
    return [*joined[1:], (start, end)] if start >= 0 else []


def complement(ranges: Ranges) -> Ranges:
    missing: Ranges = []
    start = 0
    for low, high in normalized(ranges):
        if start < low:
            missing.append((start, low - 1))
        start = high + 1
    if start <= _LAST:
        missing.append((start, _LAST))
    return missing


def combine(operation: str, left: Ranges, right: Ranges) -> Ranges:
    """Apply a set operation to two character classes: `&&` (in both), `--` (only in the left), `~~` (in exactly
    one)."""
    both = complement(complement(left) + complement(right))
    if operation == "&&":
        return both
    without = complement(complement(left) + right)
    return without if operation == "--" else normalized(without + complement(complement(right) + left))


@lru_cache(maxsize=1)
def _by_category() -> dict[str, Ranges]:
    """Return the ranges of code points of every Unicode general category. The first call takes 25 ms."""
    tables: dict[str, Ranges] = {name: [] for name in _CATEGORIES}
    for codes in _ASSIGNED:
        start = codes.start
        for category, alike in groupby(map(unicodedata.category, map(chr, codes))):
            end = start + sum(1 for _ in alike)
            tables[category].append((start, end - 1))
            start = end
    tables["Co"] += _PRIVATE_PLANES
    tables["Cn"] = complement([pair for name in _CATEGORIES if name != "Cn" for pair in tables[name]])
    return tables


@lru_cache(maxsize=64)
def _of_categories(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    tables = _by_category()
    return tuple(normalized([pair for name in names for pair in tables[name]]))


def folded(ranges: Ranges) -> Ranges:
    """Make a character class case-insensitive: `[a-c]` becomes `[A-Ca-c]`."""
    codes, alike = _cases()
    more = [
        (other, other)
        for low, high in ranges
        for code in codes[bisect_left(codes, low) : bisect_left(codes, high + 1)]
        for other in alike[code]
    ]
    return normalized([*ranges, *more])


@lru_cache(maxsize=1)
def _cases() -> tuple[list[int], dict[int, list[int]]]:
    """Return the sorted code points that have case variants, and a mapping from each to its variants and itself."""
    by_fold: dict[int, list[int]] = {}
    for low, high in (*_of_categories(("Lu", "Ll", "Lt")), *_CASED_BESIDE_LETTERS):
        for code in range(low, high + 1):
            by_fold.setdefault(_fold(code), []).append(code)
    alike = {code: codes for codes in by_fold.values() if len(codes) > 1 for code in codes}
    return sorted(alike), alike


def _fold(code: int) -> int:
    char = chr(code)
    full = char.casefold()
    simple = full if len(full) == 1 else char.lower()  # a letter that folds to several may have a simple fold too
    return _FOLDED_ALIKE.get(code, ord(simple) if len(simple) == 1 else code)


@lru_cache(maxsize=6)
def perl(letter: str) -> Ranges:
    """Return the characters of a Perl class: \\d, \\s, \\w, or the negation \\D, \\S, \\W. The list is cached, so
    callers must not change it."""
    if letter.isupper():
        return complement(perl(letter.lower()))
    if letter == "s":
        return _SPACE
    if letter == "d":
        return list(_of_categories(("Nd",)))
    names = tuple(name for name in _CATEGORIES if name[0] in "LM" or name in ("Nd", "Nl", "Pc"))
    return normalized([*_of_categories(names), *_MORE_WORD])


def named_property(name: str) -> Ranges | None:
    """Return the code points of a Unicode general category, given its short or long name (`Lu`, `uppercaseletter`).

    `any`, `ascii`, `whitespace` and `assigned` are accepted too. Return None for an unknown name.
    """
    plain = re.sub(r"[ _-]", "", name).lower()
    for prefix in ("generalcategory=", "gc=", "generalcategory:", "gc:"):
        plain = plain.removeprefix(prefix)
    if plain == "any":
        return [(0, _LAST)]
    if plain == "ascii":
        return [(0, 0x7F)]
    if plain in ("whitespace", "space"):
        return _SPACE
    if plain == "assigned":
        return complement(list(_of_categories(("Cn",))))
    short = _LONG_NAMES.get(plain, plain).lower()
    if short == "lc":
        return list(_of_categories(("Lu", "Ll", "Lt")))
    names = tuple(known for known in _CATEGORIES if known.lower() == short or known[0].lower() == short)
    return list(_of_categories(names)) if names else None


def posix(source: str, at: int) -> tuple[Ranges, bool, int] | None:
    """Parse a POSIX class, `[:name:]` or `[:^name:]`, at position `at` of a regular expression.

    Return its characters, whether it is negated, and the position after `:]`; None if there is no POSIX class.
    """
    found = _POSIX_CLASS.match(source, at)
    if found is None or found.group(2) not in _POSIX:
        return None
    return _POSIX[found.group(2)], bool(found.group(1)), found.end()
