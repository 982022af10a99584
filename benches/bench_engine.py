"""Engine benchmarks. In an ordinary test run they run once, as a check that both engines answer.

For numbers: `make bench`, or the pytest command in check_gates.py. Timer and statistics are chosen so that a busy
machine does not change them: CPU time, and the minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import workload

CALLS = ["decode", "match_2500", "match_100000", "fit_2500", "fit_100000", "fit_1000000"]


@pytest.fixture(params=["python", pytest.param("rust", marks=pytest.mark.rust)])
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "rust":
        pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    return name


@pytest.mark.parametrize("name", CALLS)
def test_engine(benchmark: Callable[[Callable[[], Any]], Any], engine_name: str, name: str) -> None:
    benchmark.group = name  # type: ignore[attr-defined]
    call = workload.call(engine_name, name)
    assert benchmark(call) == workload.call("python", name)()


def test_hand_written_loop(benchmark: Callable[[Callable[[], Any]], Any]) -> None:
    pytest.importorskip("orjson")
    benchmark.group = "match_2500"  # type: ignore[attr-defined]
    assert benchmark(workload.hand_written_loop(2500)) is None
