"""Sets of characters as sorted ranges of code points, for `regex_dialect`. Twin: the tables of the `regex` crate."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from typing import Final, TypeAlias

__all__ = ["Ranges", "as_class", "combine", "complement", "named_property", "normalized", "perl", "posix"]

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
# Word characters that no general category covers: joiners and the enclosed letters (Other_Alphabetic).
_MORE_WORD: Final[Ranges] = [
    (0x200C, 0x200D),
    (0x24B6, 0x24E9),
    (0x1F130, 0x1F149),
    (0x1F150, 0x1F169),
    (0x1F170, 0x1F189),
]
_ASCII_PERL: Final[dict[str, Ranges]] = {
    "d": [(0x30, 0x39)],
    "s": [(0x09, 0x0D), (0x20, 0x20)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
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
    """Sort and join."""
    joined: Ranges = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


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
    """Apply a set operation of bracketed classes: `&&` both, `--` left only, `~~` exactly one."""
    both = complement(complement(left) + complement(right))
    if operation == "&&":
        return both
    without = complement(complement(left) + right)
    return without if operation == "--" else normalized(without + complement(complement(right) + left))


def as_class(ranges: Ranges) -> str:
    """Return the inside of a `re` bracket; "" for the empty set."""
    return "".join(_escaped(low) if low == high else f"{_escaped(low)}-{_escaped(high)}" for low, high in ranges)


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


@lru_cache(maxsize=1)
def _by_category() -> dict[str, Ranges]:
    """Ranges of every general category; a tenth of a second, once, when a pattern meets a text beyond ASCII."""
    tables: dict[str, Ranges] = {name: [] for name in _CATEGORIES}
    start, current = 0, unicodedata.category("\0")
    for code in range(1, _LAST + 1):
        category = unicodedata.category(chr(code))
        if category != current:
            tables[current].append((start, code - 1))
            start, current = code, category
    tables[current].append((start, _LAST))
    return tables


@lru_cache(maxsize=64)
def _of_categories(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    tables = _by_category()
    return tuple(normalized([pair for name in names for pair in tables[name]]))


def perl(letter: str, only_ascii: bool) -> Ranges:
    """Return \\d, \\s or \\w; the small form is enough for a text that is ASCII."""
    if only_ascii:
        return _ASCII_PERL[letter]
    if letter == "s":
        return _SPACE
    if letter == "d":
        return list(_of_categories(("Nd",)))
    names = tuple(name for name in _CATEGORIES if name[0] in "LM" or name in ("Nd", "Nl", "Pc"))
    return normalized([*_of_categories(names), *_MORE_WORD])


def named_property(name: str) -> Ranges | None:
    """Return a general category by its short or long name, or None for what is not known here."""
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


def posix(source: str, at: int) -> tuple[Ranges, int] | None:
    """Read `[:name:]` or `[:^name:]` at a position; None when it is an ordinary nested class."""
    found = _POSIX_CLASS.match(source, at)
    if found is None or found.group(2) not in _POSIX:
        return None
    ranges = _POSIX[found.group(2)]
    return (complement(ranges) if found.group(1) else ranges), found.end()
