"""The strength of a secret. One rule for all secrets decides by the strength where a secret is replaced.

A secret that looks like a word must not be replaced inside words: the password `demo` would destroy `demographics` in
the data of the next step. A secret that no text contains by chance is replaced wherever it occurs.
"""

from __future__ import annotations

import math
import re
import string
from enum import Enum
from pathlib import Path
from typing import Final

_LEAST_BITS: Final = 40.0
"""Least strength, in bits, of a secret that is replaced in data. A weaker secret looks like a word, a year or a row
number."""
_SAFE_BITS: Final = 64.0
"""Least strength, in bits, of a secret that is replaced even inside a longer word."""
_COMMON_BITS: Final = 10.0
"""Bits that each common word adds to the strength of a secret made of common words (`Demo-2024!`)."""
_FEWEST_SIGNS: Final = 3
"""Least number of different characters in a secret. A line of `=` or `0` is no secret."""
# The last pattern is a negated set, because a set that lists the characters beyond ASCII takes 10 ms to compile.
_ALPHABETS: Final = (
    (re.compile(r"[0-9]"), 10),
    (re.compile(r"[a-z]"), 26),
    (re.compile(r"[A-Z]"), 26),
    (re.compile(r"[\x00-/:-@\[-`{-\x7f]"), 33),
    (re.compile(r"[^\x00-\x7f]"), 100),
)
_RUN_OF_LETTERS: Final = re.compile(r"[^\W\d_]+")
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")
_LETTERS: Final = re.compile(r"[A-Z]?[^\x00-`{-\xde]{2,}|[A-Z\xc0-\xde]{2,}")
_MAX_DIGITS: Final = 4
_DATE: Final = re.compile(r"[0-9]{1,4}(?:[-./: T][0-9]{1,4})+Z?")
"""Pattern of dates, times, IP addresses and telephone numbers. Data is full of such texts. So a secret that looks like
one of them is rated as weak: signs such as `-` and `:` add nothing to its strength, only the digits count."""
_COMMON_WORDS: Final = frozenset(Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8").split())
"""Words that occur in data anyway: names of things in a playbook, and passwords that everybody tries first."""


class Strength(Enum):
    """Strength of a secret: how unlikely it is that ordinary data has the same text by chance. The stronger a secret
    is, the more of its occurrences in the data are replaced. `SecretTexts` has a field for each strength except
    COMMON."""

    COMMON = "common"
    """A secret that is replaced nowhere: it is an ordinary word and discloses nothing."""
    SHORT = "short"
    """A secret that is replaced as a whole word in texts for people (errors, log lines), never in data."""
    WORDY = "wordy"
    """A secret that is replaced as a whole word in data and in texts for people (errors, log lines). A key of a JSON
    object is replaced only if the whole key is the secret."""
    STRONG = "strong"
    """A secret that is replaced wherever it occurs: no innocent text looks like it."""


def rate_strength(text: str) -> Strength:
    """Return the strength of a secret, judged by its alphabet and length.

    If all words of the secret are common (`Demo-2024!`), each word adds only 10 bits.
    """
    if text.lower() in _COMMON_WORDS or len(set(text)) < _FEWEST_SIGNS:
        return Strength.COMMON
    words = _RUN_OF_LETTERS.findall(text)
    if words and all(word.lower() in _COMMON_WORDS for word in words):
        bits = len(words) * _COMMON_BITS + _bits(_RUN_OF_LETTERS.sub("", text))
    else:
        bits = _bits(text)
    if bits < _LEAST_BITS:
        return Strength.SHORT
    return Strength.WORDY if bits < _SAFE_BITS or _consists_of_words(text) else Strength.STRONG


def _consists_of_words(text: str) -> bool:
    """Return True if a secret consists of words and short numbers joined by signs: `eu-west-1-prod`, `Summer 2024!`."""
    return all(_is_word(piece) for piece in _BETWEEN_WORDS.split(text))


def _is_word(piece: str) -> bool:
    letters = piece.rstrip(string.digits)
    return len(piece) - len(letters) <= _MAX_DIGITS and not _LETTERS.sub("", letters)


def _bits(text: str) -> float:
    if _DATE.fullmatch(text):
        text = re.sub(r"[^0-9]", "", text)
    alphabet = sum(size for signs, size in _ALPHABETS if signs.search(text))
    return len(text) * math.log2(alphabet) if alphabet else 0.0
