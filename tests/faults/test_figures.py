"""docs/reliability.md has a line for every fault, docs/reliability-figures.md what was measured and where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import holds
from faults import figures
from faults.conftest import DONE, Measured
from patience import PATIENCE_S

FOUND = figures.load()


def test_pages_are_what_the_figures_say() -> None:
    assert figures.DOCUMENT.read_text(encoding="utf-8") == figures.document(FOUND)
    assert figures.OVERVIEW.read_text(encoding="utf-8") == figures.overview()


@pytest.mark.parametrize("fault", [*(f"F{number}" for number in range(1, 29)), "K", "U", "D", "L", "S"])
def test_fault_has_a_line_and_figures_or_a_place(fault: str) -> None:
    overview = figures.OVERVIEW.read_text(encoding="utf-8")
    assert len([line for line in overview.splitlines() if line.startswith(f"| [{fault}] |")]) == 1
    assert f"\n[{fault}]: reliability-figures.md#{fault.lower()}\n" in overview
    assert figures.DOCUMENT.read_text(encoding="utf-8").count(f"\n## {fault}\n") == 1
    assert any(one.fault == fault for one in FOUND) or fault in figures.POINTERS


def test_tests_and_places_that_the_figures_name_exist() -> None:
    assert [one.where for one in FOUND if not figures.is_there(one.where)] == []
    for places in figures.POINTERS.values():
        assert all((figures.ROOT / place).exists() for place in places), places


def test_new_figures_replace_those_of_the_same_test_and_no_others() -> None:
    def figure(what: str, value: float, where: str, form: str = "short") -> figures.Figure:
        return figures.Figure("F1", what, value, "s", "", where, form)

    old = [figure("a", 1, "x"), figure("gone", 1, "x"), figure("b", 1, "y"), figure("a", 1, "x", "long")]
    merged = figures.merge(old, [figure("a", 2, "x")])
    assert [(one.what, one.value, one.where, one.form) for one in merged] == [
        ("b", 1, "y", "short"),
        ("a", 2, "x", "short"),
        ("a", 1, "x", "long"),
    ]


def test_figure_above_its_bound_fails(measured: Measured) -> None:
    with pytest.raises(AssertionError, match="promised: at most 1"):
        measured("F1", "never kept", 2.0, "", at_most=1)
    with pytest.raises(AssertionError, match="promised: 0"):
        measured("F1", "never kept", 2.0, "", exactly=0)


@pytest.mark.parametrize("unit", ["s", "ms", "/s", "x"])
def test_bound_of_a_time_is_asserted_where_times_are_held_and_nowhere_else(
    unit: str, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "HOLDS_TIMES", False)
    measured("F1", "on a busy machine", 2.0, unit, at_most=1)
    monkeypatch.setattr(holds, "HOLDS_TIMES", True)
    with pytest.raises(AssertionError, match="promised: at most 1"):
        measured("F1", "on a busy machine", 2.0, unit, at_most=1)


SOAKS = """
from pathlib import Path
import pytest

HERE = Path(__file__).parent

@pytest.mark.soak
@pytest.mark.parametrize("name", ["fine", "stopped"])
def test_soak(name, measured):
    with open(HERE / "runs", "a") as runs:
        print(name, file=runs)
    assert name == "fine" or (HERE / "quiet").exists()
    measured("S", name, 7, "", exactly=7)

def test_that_is_no_soak():
    with open(HERE / "runs", "a") as runs:
        print("short", file=runs)
"""


def test_soak_that_was_done_is_not_done_again_and_its_figures_are_kept(tmp_path: Path) -> None:
    (tmp_path / "test_soaks.py").write_text(SOAKS, encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), DONE: str(tmp_path / "done")}
    variables.pop("PYTEST_ADDOPTS", None)
    options = f"-q -p surroundings -p faults.conftest -c {os.devnull}"
    command = [sys.executable, "-m", "pytest", *options.split(), f"--rootdir={tmp_path}"]

    def run() -> int:
        ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, timeout=PATIENCE_S, check=False)
        return ran.returncode

    assert run() == 1, "it is stopped in the second one"
    (tmp_path / "quiet").touch()
    assert run() == 0
    runs = Counter((tmp_path / "runs").read_text(encoding="utf-8").split())
    assert runs == {"fine": 1, "stopped": 2, "short": 2}
    kept = [json.loads(file.read_text(encoding="utf-8")) for file in (tmp_path / "done").iterdir()]
    assert sorted(figure["what"] for found in kept for figure in found) == ["fine", "stopped"]
