"""A gate that cannot fail is none: those of the worker are shown a worker that does more for each command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import check_gates

if not check_gates.can_run_worker():
    pytest.skip("the rig needs Linux, httptools, orjson and uvloop", allow_module_level=True)
import worker_gates

LIMITS = check_gates.load_gates()["worker"]
WITHIN = {name: float(LIMITS[name]) for name in worker_gates.MARGINS}
PYTHON = str(LIMITS["calls_of"])


def judged(found: dict[str, float], python: str = PYTHON) -> check_gates.GateResults:
    results = check_gates.GateResults()
    worker_gates.check(found, LIMITS, python, results.judge)
    return results


@pytest.mark.gates
def test_every_gate_of_the_worker_fails_on_a_worse_one() -> None:
    """Its noop starts tasks, and its commands are reported in two requests where one would do."""
    worse = {"NOETL_WORKER_STARTED_HOLD_MS": "0"}
    more = {"commands": 150, "plug_ins": ("slow_noop", "slow_http"), "variables": worse}
    found = asyncio.run(worker_gates.count(**more)) | asyncio.run(worker_gates.compare(rounds=2, **more))
    failed = {failure.partition(":")[0] for failure in judged(found).failures}
    assert failed == {f"worker {name}" for name in worker_gates.MARGINS}, found


@pytest.mark.parametrize("name", worker_gates.MARGINS)
def test_figure_holds_at_its_limit_and_fails_above(name: str) -> None:
    assert judged(WITHIN).exit_code() == 0
    assert len(judged({**WITHIN, name: WITHIN[name] + 0.01}).failures) == 1


def test_calls_of_another_python_are_reported_and_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert judged({**WITHIN, "calls": 10**9}, python="3.99").failures == []
    assert f"the limit of calls is that of Python {PYTHON}" in capsys.readouterr().out


def test_written_limits_are_the_measured_ones_with_a_margin_and_the_rest_is_kept(tmp_path: Path) -> None:
    text = check_gates.GATES.read_text(encoding="utf-8")
    copy = tmp_path / "gates.toml"
    copy.write_text(worker_gates.with_limits(text, dict.fromkeys(worker_gates.MARGINS, 100.0), "3.99"))
    written = check_gates.load_gates(copy)
    assert written.pop("worker") == {
        **{name: pytest.approx(100 * (1 + margin)) for name, margin in worker_gates.MARGINS.items()},
        "calls_of": "3.99",
    }
    old = check_gates.load_gates()
    del old["worker"]
    assert written == old
    assert copy.read_text().count("#") == text.count("#")


def test_limits_that_cannot_be_written_are_an_error() -> None:
    with pytest.raises(SystemExit, match="`tasks = ` is there 0 times"):
        worker_gates.with_limits("[worker]\n", WITHIN, PYTHON)
