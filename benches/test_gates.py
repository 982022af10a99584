"""A gate that cannot fail is none: each one is shown a deliberately slowed copy of the Rust engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import check_gates
import workload

pytestmark = [pytest.mark.rust, pytest.mark.gates]

QUICK = ["--benchmark-warmup=off", "--benchmark-min-rounds=3", "--benchmark-max-time=0.02"]
CAN_COUNT = check_gates.can_count()
CAN_BUILD = CAN_COUNT and shutil.which("cargo") is not None


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the benchmarks call the Rust engine thirty times for one."""
    pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    pytest.importorskip("orjson")
    monkeypatch.setenv(workload.SLOWED, "30")
    return 30


def test_every_ratio_gate_fails_on_a_slowed_engine(slowed: int, tmp_path: Path) -> None:
    gates = check_gates.load_gates()
    results = check_gates.GateResults()
    check_gates.measure(tmp_path / "bench.json", *QUICK)
    check_gates.check_ratios(tmp_path / "bench.json", gates, results)
    assert len(results.failures) == len(gates["ratio"]), results.failures
    assert results.exit_code() == 1


@pytest.mark.parametrize("call", ["decode"] if CAN_COUNT else [])
def test_instruction_ceiling_fails_on_a_slowed_engine(
    call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    gates = {"ceiling": [{"call": call, "times": 100}]}
    monkeypatch.setattr(check_gates, "CEILINGS", tmp_path / "ceilings.json")
    check_gates.check_ceilings(gates, check_gates.GateResults(), write=True)
    monkeypatch.setenv(workload.SLOWED, "2")
    assert len(_judged(gates).failures) == 1


def _judged(gates: dict[str, Any]) -> check_gates.GateResults:
    results = check_gates.GateResults()
    check_gates.check_ceilings(gates, results)
    return results


@pytest.mark.timeout(1800)  # it may have to compile the example first
@pytest.mark.parametrize("call", ["match_2500"] if CAN_BUILD else [])
def test_binding_gate_fails_on_a_slowed_engine(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    monkeypatch.setenv(workload.SLOWED, "2")
    results = check_gates.GateResults()
    check_gates.check_binding({"binding": [{"call": call, "times": 5, "max_share": 0.10}]}, results)
    assert len(results.failures) == 1


def test_other_toolchain_is_reported_and_not_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_gates, "CEILINGS", tmp_path / "ceilings.json")
    monkeypatch.setattr(check_gates, "toolchain", lambda: "another")
    monkeypatch.setattr(check_gates, "python_call", lambda _call, _times: 10**9)
    (tmp_path / "ceilings.json").write_text(json.dumps({"this one": {"decode": 1}}))
    assert _judged({"ceiling": [{"call": "decode", "times": 1}]}).failures == []
    assert "no instruction ceilings for another" in capsys.readouterr().out


def test_limits_are_the_promised_ones() -> None:
    floors = {(gate["call"], gate["slow"]): gate["floor"] for gate in check_gates.load_gates()["ratio"]}
    assert floors["decode", "python"] >= 2.0
    assert floors["match_2500", "python"] >= 8.0
    assert floors["match_2500", "loop"] >= 2.0
    assert floors["fit_100000", "python"] >= 10.0
    assert floors["noop_2500", "deepcopy"] >= 0.58
    assert {gate["max_share"] for gate in check_gates.load_gates()["binding"]} == {0.10}


def test_isolation_gate_holds_at_its_limit_and_fails_above() -> None:
    gates = check_gates.load_gates()
    for kind, limit in gates["isolation"].items():
        for more, failures in ((0.0, 0), (0.01, 1)):
            results = check_gates.GateResults()
            check_gates.check_isolation({**gates["isolation"], kind: limit + more}, gates, results)
            assert len(results.failures) == failures


def test_isolation_that_costs_more_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An isolation that makes each command run twice."""
    import bench_tools

    once = bench_tools.cpu_per_command_ms

    async def twice(kind: str, config: dict[str, object], commands: int, level: bench_tools.Confinement) -> float:
        spent_ms = await once(kind, config, commands, level)
        return 2 * spent_ms if level is bench_tools.BASIC else spent_ms

    monkeypatch.setattr(bench_tools, "cpu_per_command_ms", twice)
    gates, results = check_gates.load_gates(), check_gates.GateResults()
    check_gates.check_isolation(check_gates.isolation_ratios(commands=100, rounds=3), gates, results)
    assert len(results.failures) == len(gates["isolation"])


def test_redaction_gate_holds_at_its_limit_and_fails_above() -> None:
    gates = check_gates.load_gates()
    limit = gates["redaction"]["many_to_few"]
    for more, failures in ((0.0, 0), (0.01, 1)):
        results = check_gates.GateResults()
        check_gates.check_redaction({"base64 text": limit + more, "log text": 1.0}, "rust", gates, results)
        assert len(results.failures) == failures
