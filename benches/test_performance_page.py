"""docs/performance.md is what performance.json gives, and the benchmark that writes both runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import check_gates
import performance_page

FOUND = performance_page.load()
PROGRAM = Path(__file__).with_name("bench_worker.py")
needs_rig = pytest.mark.skipif(
    not check_gates.can_run_worker(), reason="the rig needs Linux, httptools, orjson, uvloop"
)


def test_page_is_what_the_figures_give() -> None:
    assert performance_page.DOCUMENT.read_text(encoding="utf-8") == performance_page.document(FOUND), (
        "run `python benches/bench_worker.py page`"
    )


def test_page_names_machine_and_commit() -> None:
    page = performance_page.document({**FOUND, "machine": "3 cores", "commit": "abc123"})
    assert "at commit `abc123`: 3 cores; load average" in page
    without = performance_page.document({**FOUND, "machine": "3 cores", "commit": "", "date": "2026-01-02"})
    assert "Measured on 2026-01-02: 3 cores; load average" in without


@needs_rig
def test_figures_are_those_of_the_scenarios_of_now() -> None:
    """Slots, sizes and kinds; how many commands a run sends is its own affair."""
    import bench_worker

    names = ("kind", "slots", "delay_ms", "context_bytes", "result_bytes")
    of_now = {
        table: [tuple(getattr(one, name) for name in names) for one in scenarios]
        for table, scenarios in bench_worker.SCENARIOS.items()
    }
    measured = {
        table: [tuple(row["scenario"][name] for name in names) for row in rows]
        for table, rows in FOUND["tables"].items()
    }
    assert measured == of_now, "run `make performance`"


@needs_rig
def test_kinds_of_the_page_are_those_that_are_measured() -> None:
    import bench_kinds

    assert list(FOUND["kinds"]["kinds"]) == list(bench_kinds.COMMANDS), "run `make performance`"
    assert set(bench_kinds.configs("http://h/", 1)) == set(bench_kinds.COMMANDS)


@needs_rig
def test_shared_pages_count_once_in_the_proportional_set_size() -> None:
    import measured_process

    assert 0 < measured_process.pss_mb(os.getpid()) <= measured_process.rss_mb(os.getpid())


@needs_rig
def test_scenario_gives_rate_cpu_requests_memory_idle_and_tool_starts() -> None:
    options = "--kind python --commands 20 --rounds 1 --slots 2 --delay-ms 1 --context-bytes 1000 --result-bytes 1000"
    timed = "--idle-s 0.2 --paced-s 0.5 --rate 20 --no-yardstick --set NOETL_WORKER_STARTED_HOLD_MS=0"
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), "run", *options.split(), *timed.split()], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    worker = found["worker"]
    assert found["commit"] or not (PROGRAM.parents[1] / ".git").exists()
    assert worker["requests_per_command"] == 3  # claim, started, batch
    assert 0 < worker["tool_start_ms"]["p50"] <= worker["tool_start_ms"]["p99"] <= worker["tool_start_ms"]["max"]
    for name in ("commands_per_s", "cpu_us", "rss_mb", "first_claim_ms"):
        assert worker[name] > 0, name
    assert worker["idle_cpu_percent"] >= 0


@needs_rig
def test_yardstick_is_timed_as_the_worker_is() -> None:
    options = "--commands 20 --rounds 1 --slots 2 --idle-s 0 --paced-s 0.3 --rate 100"
    ran = subprocess.run([sys.executable, str(PROGRAM), "run", *options.split()], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for side in ("worker", "yardstick"):
        starts = found[side]["tool_start_ms"]
        assert 0 < starts["p50"] <= starts["p99"] <= starts["max"]
