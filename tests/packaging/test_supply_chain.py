"""`make supply-chain`: a finding fails, missing data and missing tools are said and fail nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import supply_chain

FINE = {"exit": 0, "out": ""}
AUDITED = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "version": "1", "skip_reason": "Dependency not found"}
VULNERABLE = {"name": "c", "version": "1", "vulns": [{"id": "PYSEC-1"}]}


def audit(*dependencies: dict[str, Any]) -> dict[str, Any]:
    return {
        "exit": int(any(one.get("vulns") for one in dependencies)),
        "out": json.dumps({"dependencies": dependencies}),
    }


@dataclass(frozen=True)
class Scripted(supply_chain.Project):
    """What each program answers, by its name and first argument."""

    answers: dict[str, Any]

    def run(self, *command: str) -> supply_chain.Ran | None:
        if command[1:2] == ("-c",):
            return supply_chain.Ran(0, "/site-packages\n", "")
        answer = self.answers.get(" ".join(command[:2]), self.answers.get(command[0]))
        return answer and supply_chain.Ran(answer["exit"], answer.get("out", ""), answer.get("err", ""))


ALL = {"cargo": FINE, "cargo-deny": FINE, "pip-audit": audit(AUDITED), "zizmor": FINE}


@pytest.fixture
def told(tmp_path: Path, capsys: Any) -> Any:
    for name in ("python", "rust"):
        file = tmp_path / f"dist/sbom/{name}.cdx.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"components": [{}]}')

    def check(**changes: Any) -> tuple[int, str]:
        answers = {**ALL, "cyclonedx-py": FINE, "cargo-cyclonedx": FINE, **changes}
        code = supply_chain.check(Scripted(tmp_path, "python", tmp_path, answers))
        return code, capsys.readouterr().out

    return check


def test_every_step_that_finds_nothing_says_ok(told: Any) -> None:
    code, text = told()
    assert code == 0
    assert text.count(": ok: ") == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"cargo-deny check": {"exit": 4, "out": "GPL-3.0 is not allowed"}},
            "crates: licences, sources, bans: FOUND: GPL",
        ),
        ({"cargo-deny check": {"exit": 1, "out": "RUSTSEC-1"}}, "crates: advisories: FOUND: RUSTSEC-1"),
        ({"pip-audit": audit(AUDITED, VULNERABLE)}, "packages: advisories: FOUND: c 1: PYSEC-1"),
        ({"pip-audit": {"exit": 1, "err": "a bug of its own"}}, "packages: advisories: FOUND: pip-audit failed"),
        ({"zizmor": {"exit": 14, "out": "unpinned"}}, "workflows: FOUND: unpinned"),
        ({"cyclonedx-py": {"exit": 2, "err": "no"}}, "packages: components: FOUND: no list"),
    ],
)
def test_what_is_found_fails(told: Any, change: dict[str, Any], said: str) -> None:
    code, text = told(**change)
    assert code == 1
    assert said in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"cargo-deny fetch": {"exit": 1, "err": "no such host"}},
            "crates: advisories: skipped: the advisory database",
        ),
        ({"cargo-deny fetch": {"exit": 124, "err": "timed out"}}, "cannot be had from here: timed out"),
        ({"pip-audit": audit(UNKNOWN)}, "packages: advisories: skipped: PyPI's advisories cannot be had from here"),
        ({"pip-audit": {"exit": 1, "err": "ConnectionError: x"}}, "cannot be had from here: ConnectionError: x"),
        ({"cargo": None}, "crates: licences, sources, bans: skipped: no cargo"),
        ({"cargo-deny": None}, "skipped: cargo-deny is not installed"),
        ({"pip-audit": None, "zizmor": None}, "workflows: skipped: zizmor is not installed"),
        ({"cargo-cyclonedx": None, "cyclonedx-py": None}, "crates: components: skipped: cargo-cyclonedx is not"),
    ],
)
def test_what_cannot_be_looked_at_is_said_and_fails_nothing(told: Any, change: dict[str, Any], said: str) -> None:
    code, text = told(**change)
    assert code == 0
    assert said in text


def test_packages_without_advisories_are_named_beside_those_with(told: Any) -> None:
    assert "no advisory for 1 packages, none to be had for 1 (b)" in told(**{"pip-audit": audit(AUDITED, UNKNOWN)})[1]
