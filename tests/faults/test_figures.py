"""docs/reliability.md has a line for every fault, docs/reliability-figures.md what was measured and where."""

from __future__ import annotations

import pytest

import holds
from faults import figures
from faults.conftest import Measured

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
