"""The registry's share of a command, as bench_engine.py measures the engine's: CPU time, and the minimum of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

import workload


@pytest.mark.parametrize("engine_name", ["python", pytest.param("rust", marks=pytest.mark.rust)])
def test_tool_call(benchmark: Callable[[Callable[[], Any]], Any], engine_name: str) -> None:
    if engine_name == "rust":
        pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    benchmark.group = "noop_2500"  # type: ignore[attr-defined]
    call = workload.call(engine_name, "noop_2500")
    fitted = benchmark(call)
    assert fitted == workload.call("python", "noop_2500")()
    assert fitted.size > 2_000


def test_context_by_deepcopy(benchmark: Callable[[Callable[[], Any]], Any]) -> None:
    """What the no-op is measured in: a copy of its context by plain Python, as the no-op itself is.

    The json module is C: from one processor to another its share of the no-op went from 0.6 to 0.9.
    """
    benchmark.group = "noop_2500"  # type: ignore[attr-defined]
    context = json.loads(workload.result(2500))
    assert benchmark(lambda: copy.deepcopy(context)) == context
