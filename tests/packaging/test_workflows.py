"""The workflows, read: no runner is needed to see that they fetch no program unseen and hang together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
UNSEEN = re.compile(r"(curl|wget|Invoke-WebRequest|irm|iwr)\b", re.IGNORECASE)
RIGHTS = {
    ("release", "publish-native"): {"id-token": "write"},
    ("release", "publish-pure"): {"id-token": "write"},
    ("release", "image"): {"contents": "read", "packages": "write", "id-token": "write"},
    ("version", "version"): {"contents": "write"},
    ("version", "release"): {"contents": "read", "id-token": "write", "packages": "write"},
}
"""Beside reading the source, which every job may."""
each_file = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


def read(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def jobs(file: Path) -> dict[str, Any]:
    return dict(read(file)["jobs"])


def steps(file: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(file).values():
        yield from job.get("steps", [])


def made(file: Path) -> set[str]:
    """The targets that a workflow makes, those of a matrix too."""
    runs = {step.get("run", "") for step in steps(file)}
    of_a_matrix = [job["strategy"]["matrix"].get("target", []) for job in jobs(file).values() if "strategy" in job]
    if "make ${{ matrix.target }}" in runs:
        runs |= {f"make {target}" for targets in of_a_matrix for target in targets}
    return {name for run in runs for name in re.findall(r"\bmake ([a-z-]+)", run)}


@each_file
def test_actions_are_commits_with_their_version_beside_them(file: Path) -> None:
    """A tag can be moved to another commit; the version is for people, and for what proposes the next one."""
    used = re.findall(r"\buses: (.+)", file.read_text(encoding="utf-8"))
    own = [job["uses"] for job in jobs(file).values() if "uses" in job]
    assert len(used) == len(own) + sum("uses" in step for step in steps(file))
    assert all(one.startswith("./.github/workflows/") for one in own)
    assert [one for one in used if one not in own and PINNED.fullmatch(one) is None] == []


def test_each_action_is_one_commit_everywhere() -> None:
    lines = {line for file in FILES for line in re.findall(r"\buses: ([^.].+)", file.read_text(encoding="utf-8"))}
    assert len(lines) == len({line.partition("@")[0] for line in lines})


@each_file
def test_no_step_runs_what_it_fetches_unseen(file: Path) -> None:
    assert [step["run"] for step in steps(file) if UNSEEN.search(step.get("run", ""))] == []


def unpinned(script: str) -> list[str]:
    """What is installed by name without its one version; this project and a wheel of it bring ranges of their own."""
    installed = [re.split(r"&&|[;|]", rest)[0] for rest in re.findall(r"\bpip3? install\b([^\n]*)", script)]
    words = [word for line in installed for word in shlex.split(line.replace("--group test", ""))]
    return [word for word in words if word[0] not in "-.$" and not re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", word)]


@each_file
def test_tools_are_installed_in_one_version(file: Path) -> None:
    assert [word for step in steps(file) for word in unpinned(step.get("run", ""))] == []


@each_file
def test_crates_are_installed_in_one_version(file: Path) -> None:
    lines = [line for step in steps(file) for line in step.get("run", "").splitlines() if "cargo install" in line]
    assert [line for line in lines if not re.search(r"cargo install --locked [\w-]+@\d", line)] == []


@each_file
def test_jobs_have_few_rights_and_an_end(file: Path) -> None:
    assert read(file)["permissions"] == {"contents": "read"}
    for name, job in jobs(file).items():
        assert "uses" in job or job["timeout-minutes"] <= 300, name
        assert job.get("permissions", {}) == RIGHTS.get((file.stem, name), {}), name


@each_file
def test_make_targets_are_there(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert made(file) <= targets


def test_what_make_test_leaves_out_is_run_every_night() -> None:
    nightly = ROOT / ".github/workflows/nightly.yml"
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    ci = set(" ".join(re.findall(r"^(?:make|together|rest=\() ?([a-z -]+)\)?$", script, re.MULTILINE)).split())
    assert {"lint", "types", "test", "counts", "pages", "wheels"} <= ci
    assert not ci & {"faults", "steady", "soak", "bench"}, "what measures does not decide whether a change lands"
    assert {"faults", "steady", "soak", "bench", "simulate", "fuzz", "test-pure", "test-pythons"} <= made(nightly)
    assert {"anywhere", "compat", "upgrade-test", "image-test"} <= made(nightly)
    checkout = jobs(nightly)["upgrade"]["steps"][0]
    assert checkout["with"]["fetch-depth"] == 0  # the version before is a commit


def test_nothing_is_published_that_was_not_checked() -> None:
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert set(release["check"]["needs"]) == {"smoke", "supply-chain"}
    assert set(release["smoke"]["needs"]) == {"native", "pure"}
    assert release["publish-native"]["needs"] == "check"
    assert release["publish-pure"]["needs"] == "publish-native"
    assert release["image"]["needs"] == "publish-pure"


def test_every_place_that_has_the_version_is_named_to_what_raises_it() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    places = re.findall(
        r'"([\w./-]+):([\w.]+)"', project[project.index("[tool.semantic_release]") :].split("\n[", 1)[0]
    )
    assert len(places) == 5
    for file, name in places:
        pattern = rf"^{re.escape(name.rsplit('.', 1)[-1])}\s*[=:]\s*\"?{re.escape(version[1])}\"?"
        assert re.search(pattern, (ROOT / file).read_text(encoding="utf-8").replace("  _TAG", "_TAG"), re.MULTILINE), (
            file
        )
