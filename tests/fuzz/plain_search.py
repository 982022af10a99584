"""What known secrets are taken out of a text, by definition: each one is looked for at each place."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final

MARK: Final = "[REDACTED]"
LONGEST_HEAD: Final = 1_024
_ESCAPED: Final = re.compile(r"(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\Z")
_REFERENCE: Final = re.compile(r"noetl://(?:(?![\"'<>\\])[!-~])*")


def replaced(text: str, secrets: Sequence[str], words: Sequence[str]) -> str:
    """Return a text of at most 1,024 characters before each secret without them, from left to right."""
    known = {secret: secret in secrets for secret in (*secrets, *words) if len(secret) >= 4 and secret not in MARK}
    made, at = "", 0
    while at < len(text):
        size = 0
        if not _is_in_reference(text, at):
            size = max((_size(text, at, secret, is_anywhere) for secret, is_anywhere in known.items()), default=0)
        made, at = (made + MARK, at + size) if size else (made + text[at], at + 1)
    return made


def _size(text: str, at: int, secret: str, is_anywhere: bool) -> int:
    size = 0
    while size < len(secret) and text[at + size : at + size + 1] == secret[size]:
        size += 1
    if size == len(secret) <= LONGEST_HEAD:
        return size if is_anywhere or _is_word(text, at, at + size) else 0
    return size if size >= LONGEST_HEAD else 0


def _is_word(text: str, start: int, end: int) -> bool:
    has_begun = _is_inside(text, start) and not _ESCAPED.search(text[:start])
    return not has_begun and not _is_inside(text, end)


def _is_inside(text: str, at: int) -> bool:
    around = text[at - 1 : at + 1] if at else ""
    return len(around) == 2 and all(re.match(r"[A-Za-z0-9_\u00c0-\u1fff]", sign) for sign in around)


def _is_in_reference(text: str, at: int) -> bool:
    return any(found.start() <= at <= found.end() for found in _REFERENCE.finditer(text))


_LETTERS: Final = ("a", "b", "ab", "abc", "é", "中", "_", "1", "-", ",", "\\n", "%2f", "\x1b[1m", "noetl://", '"')


def draw_arguments(draw: random.Random) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Draw a text and secrets that overlap, begin with each other, repeat themselves, or are nearly in the text."""
    secrets = [_drawn(draw, 7) for _ in range(draw.randrange(6))]
    words = [_drawn(draw, 7) for _ in range(draw.randrange(6))]
    unit = _drawn(draw, 4) or "ab"
    if draw.random() < 0.3:  # each begins with the one before
        draw.choice([secrets, words]).extend(unit * count for count in range(1, draw.randrange(2, 30)))
    if draw.random() < 0.1:
        draw.choice([secrets, words]).extend((unit * 700)[:size] for size in (1_023, 1_024, 1_025, 1_400))
    if draw.random() < 0.3:  # so many that one search each would take longer
        secrets += [f"abab{number}" for number in range(draw.choice([20, 300]))]
    known = [*secrets, *words]
    pieces = [
        draw.choice(known)[: draw.choice([None, None, -1, 5])] if known and draw.random() < 0.4 else _drawn(draw, 5)
        for _ in range(draw.randrange(12))
    ]
    return "".join(pieces), tuple(secrets), tuple(words)


def _drawn(draw: random.Random, most: int) -> str:
    return "".join(draw.choice(_LETTERS) for _ in range(draw.randrange(most)))
