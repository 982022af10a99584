"""A pattern makes a condition take exponential time, or all memory."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from noetl_worker.engine.pure import condition
from noetl_worker.engine.pure.regex_automaton import STEPS, Automaton
from noetl_worker.engine.pure.regex_dialect import compile_pattern
from noetl_worker.errors import ConditionError

from .commands import peak_of

NESTED = ["(a+)+$", "(a|a)*$", "(a|aa)+$", "(a*)*b", "(.*a){12}$", "(a?){25}a{25}c", r"(\w+\s?)+$"]


def lines_of(call: Callable[[], Any]) -> int:
    """How many lines of Python a call runs: its steps, whatever the machine does beside it."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def steps_of(source: str, text: str) -> int:
    pattern = compile_pattern(source)
    return lines_of(lambda: pattern.is_found_in(text))


@pytest.mark.parametrize("source", NESTED)
def test_steps_of_a_nested_repetition_grow_with_the_text_and_no_faster(source: str) -> None:
    """`(a+)+$` on a text that just fails: 33 s."""
    once, twice = (steps_of(source, "a" * length + "!") for length in (2_000, 4_000))
    assert once < twice < 2.2 * once


def test_steps_grow_with_the_text_where_every_character_leads_to_a_new_state() -> None:
    """`[ab]*a[ab]{20}c`: two to the power of 20 states."""
    letters = "".join(random.Random(7).choices("ab", k=4_000))
    once, twice = (steps_of("[ab]*a[ab]{20}c", letters[:length]) for length in (2_000, 4_000))
    assert once < twice < 2.2 * once


def test_states_of_a_search_are_forgotten_when_there_are_too_many() -> None:
    """The same for its memory."""
    pattern, letters = compile_pattern("[ab]*a[ab]{20}c"), "".join(random.Random(7).choices("ab", k=10_000))
    assert peak_of(lambda: pattern.is_found_in(letters)) < 2 << 20
    many = "".join(map(chr, range(0x4E00, 0x9FA5)))
    assert peak_of(lambda: compile_pattern("(?:.x)+$").is_found_in(many)) < 2 << 20


def refused(call: Callable[[], Any]) -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        call()
    return caught.value


def test_counted_repetition_is_refused_before_it_is_made() -> None:
    """`a{1000}{1000}{1000}`: a thousand million instructions."""
    found: list[ConditionError] = []
    alike = "|".join(["a" * 30] * 30)
    for source in ("a{1000}{1000}{1000}", f"(?:{alike}){{5000}}"):
        assert peak_of(lambda source=source: found.append(refused(lambda: compile_pattern(source)))) < 1 << 20
        assert found.pop().code == "invalid_regex"


def test_search_of_a_large_pattern_ends_after_so_many_steps_each_time() -> None:
    """`(?:a{1,100}){1,100}c`: 20,000 steps a letter."""
    pattern = compile_pattern("(?:a{1,100}){1,100}c")
    for _ in range(2):
        error = refused(lambda: pattern.is_found_in("a" * 4_000))
        assert error.code == "regex_unsupported"
        assert f"{STEPS:,} steps" in str(error)
    assert pattern.is_found_in("a" * 10 + "c")


def test_patterns_that_are_kept_are_bounded_by_their_size() -> None:
    """A different large pattern in every command."""
    kept: dict[str, Automaton] = {}
    for number in range(12):
        condition.compiled(f"x{number}(?:abc){{100000}}", kept)
        assert sum(map(len, kept.values())) <= condition.MAX_KEPT
    kept.clear()
    for number in range(256):
        condition.compiled(f"^x{number}-[a-z]{{2,5}}$", kept)
    assert len(kept) == 256


def test_long_text_that_is_nearly_a_number_is_compared_in_linear_time() -> None:
    """100,000 digits and a letter, compared with a number."""
    text = b'"%sx"' % (b"1" * 1_000_000)
    error = refused(lambda: condition.decide(text, "gt", b"1"))
    assert error.code == "not_a_number"
