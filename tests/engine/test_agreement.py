"""The two engines against each other: Hypothesis, and a fixed sample of the long run (tests/fuzz/differential.py)."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import hazards
from noetl_worker.engine.pure.regex_dialect import compile_pattern
from noetl_worker.errors import ConditionError
from noetl_worker.models import FitRules

pytestmark = [pytest.mark.rust, pytest.mark.sweep]

FAST = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def agree(call: hazards.Call, engines: tuple[Any, Any]) -> None:
    pure, rust = engines
    if hazards.differ(call, pure, rust):
        assert hazards.outcome(call, pure) == hazards.outcome(call, rust), call


@FAST
@given(data=st.binary(max_size=40))
def test_engines_agree_on_any_bytes(engines: tuple[Any, Any], data: bytes) -> None:
    for call in (
        hazards.Call("decode_notification", (data,)),
        hazards.Call("decide", (data, "eq", b"1")),
        hazards.Call("match", (b"[" + data + b"]", data, data, [data])),
        hazards.Call("fit_result", (data, FitRules())),
        hazards.Call("find_marks", (data,)),
    ):
        agree(call, engines)


@pytest.mark.parametrize("places", range(1, 12))
def test_floats_midway_between_two_texts_are_printed_as_python_does(engines: tuple[Any, Any], places: int) -> None:
    """562949953421312.25 is 562949953421312.2 and ...2.3, both as short and as near: `repr` takes the even one."""
    for number in range(200):
        value = 2.0 ** (52 - places) + number / 2**places
        for text in (repr(value), f"{value:.30f}", f"-{value:.30f}"):
            for engine in engines:
                assert engine.fit_result(text.encode(), FitRules()).body.decode() == repr(float(text))


_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


@FAST
@given(value=_values, other=_values, op=st.sampled_from(hazards.OPERATORS[:12]))
def test_engines_agree_on_any_values(engines: tuple[Any, Any], value: Any, other: Any, op: str) -> None:
    left, right = json.dumps(value).encode("utf-8", "replace"), json.dumps(other).encode("utf-8", "replace")
    for one, two in ((left, right), (left, left)):
        agree(hazards.Call("decide", (one, op, two)), engines)
    agree(hazards.Call("fit_result", (left, FitRules(max_bytes=0, preview_bytes=80))), engines)


@FAST
@given(
    text=st.text(max_size=40),
    pattern=st.text(alphabet="ab.^$*+?{}[]()|\\dDwWsSbBAzpPLxu0123456789,-&~:<>=!i", max_size=12),
)
def test_engines_agree_on_any_pattern(engines: tuple[Any, Any], text: str, pattern: str) -> None:
    sides = [json.dumps(side, ensure_ascii=False).encode("utf-8", "replace") for side in (text, pattern)]
    agree(hazards.Call("decide", (sides[0], "matches", sides[1])), engines)


@FAST
@given(draw=st.randoms(use_true_random=False))
def test_engines_agree_on_what_a_pattern_finds(engines: tuple[Any, Any], draw: random.Random) -> None:
    agree(hazards.finds(draw), engines)


@pytest.mark.parametrize("kept", [0, 3, 40])
def test_states_that_are_forgotten_change_no_answer(engines: tuple[Any, Any], kept: int) -> None:
    _, rust = engines
    for number in range(150):
        draw = random.Random(f"forgotten:{kept}:{number}")
        text = "".join(json.loads(hazards.finds(draw).arguments[0]) for _ in range(40))
        pattern = hazards.finds(draw).arguments[2]
        try:
            automaton = compile_pattern(json.loads(pattern), kept=kept)
        except ConditionError:  # no pattern, or not here; the tests above compare which are
            continue
        is_found = rust.decide(json.dumps(text).encode(), "matches", pattern)
        assert automaton.is_found_in(text) == is_found, (text, pattern)


def test_engines_agree_on_a_fixed_sample(engines: tuple[Any, Any]) -> None:
    for number in range(8_000):
        agree(hazards.call(random.Random(f"sample:{number}")), engines)


@FAST
@given(value=_values)
def test_laws_of_the_operators(engines: tuple[Any, Any], value: Any) -> None:
    data = json.dumps(value).encode("utf-8", "replace")
    for engine in engines:
        assert engine.decide(data, "eq", data)
        assert engine.decide(data, "ne", data) is False
        assert engine.decide(data, "truthy", None) is not engine.decide(data, "falsy", None)
        assert engine.decide(data, "in", b"[" + data + b"]")
        assert engine.decide(data, "not_in", b"[" + data + b"]") is False
