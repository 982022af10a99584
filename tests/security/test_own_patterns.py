"""Data makes a regular expression of the worker take quadratic time."""

from __future__ import annotations

import re
import time

import pytest

from holds import HOLDS_TIMES

from .own_patterns import own_patterns, texts_for

TINY, FIRST, SIZES = 500, 5_000, (20_000, 40_000)
SUSPECT_S, SURE_S, FLOOR_S = 0.0005, 0.2, 0.005
"""What a linear one takes a twentieth of at a first look, what it never takes, and what is too short to be judged."""
LOOKS = 3
"""The quickest counts: what else runs on the machine only ever adds."""
TIMES = 8
"""A square one is one each time; what else runs on the machine makes a linear one look so now and then."""


def taken(pattern: re.Pattern[str], use: str, text: str) -> float:
    """Seconds of this thread."""
    started = time.thread_time()
    if use in ("search", "match", "fullmatch"):
        getattr(pattern, use)(text)
    else:
        for _ in pattern.finditer(text):
            pass
    return time.thread_time() - started


def is_square(pattern: re.Pattern[str], use: str, parts: tuple[str, str, str]) -> bool:
    opening, repeated, closing = parts

    def text(size: int) -> str:
        return opening + repeated * (size // len(repeated)) + closing

    if any(taken(pattern, use, text(size)) > SURE_S for size in (TINY, FIRST)):
        return True
    if taken(pattern, use, text(FIRST)) < SUSPECT_S:
        return False

    def looks_square() -> bool:
        once, twice = (min(taken(pattern, use, text(size)) for _ in range(LOOKS)) for size in SIZES)
        return twice > FLOOR_S and twice > 3 * once

    return all(looks_square() for _ in range(TIMES))


@pytest.mark.skipif(not HOLDS_TIMES, reason="a time: make faults")
def test_time_of_no_pattern_grows_with_the_square_of_its_text() -> None:
    """120 kB of `{{ ` in rendered data: 23 s."""
    found = []
    for pattern, (where, uses) in own_patterns().items():
        for use in sorted(uses):
            square = next((parts for parts in texts_for(pattern) if is_square(pattern, use, parts)), None)
            if square is not None:
                found.append((where, use, pattern.pattern, square))
    assert found == []
