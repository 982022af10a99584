"""The page of `make compat`: tests/compat/values/plane.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compat import plane_results, real_plane
from compat.plane_results import PLAYBOOKS, RESULTS, plane_page


def test_what_is_written_is_shown_and_what_is_not_as_expected_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane_results, "RESULTS", tmp_path / "plane.json")
    good = {"playbook": "a", "published": "FAILED", "expected": "COMPLETED", "ours": "COMPLETED"}
    plane_results.write_results("3.54.0", [good, {**good, "playbook": "b", "ours": "RUNNING"}])
    lines = list(plane_page(tmp_path / "plane.json"))
    assert "3.54.0. As expected: 1 of 2." in lines
    assert lines[-2:] == [
        "| a | FAILED | COMPLETED | COMPLETED | works-here |",
        "| b | FAILED | COMPLETED | **RUNNING** | open |",
    ]


def test_before_the_first_run_it_says_so(tmp_path: Path) -> None:
    assert list(plane_page(tmp_path / "none.json"))[-1].endswith("has not been run since it writes this table.")


@pytest.mark.skipif(not RESULTS.exists(), reason="make compat was not run yet")
def test_the_last_results_have_every_playbook() -> None:
    rows = json.loads(RESULTS.read_text("utf-8"))
    assert [row["playbook"] for row in rows["playbooks"]] == sorted(path.stem for path in PLAYBOOKS.glob("*.yaml"))
    assert rows["server"] == real_plane.VERSION
