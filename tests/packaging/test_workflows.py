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


def test_next_versions_of_all_that_is_pinned_are_proposed_every_week() -> None:
    proposed = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]
    places = {(one["package-ecosystem"], one["directory"]) for one in proposed}
    assert places == {("github-actions", "/"), ("docker", "/deploy"), ("pip", "/deploy"), ("cargo", "/")}
    assert {one["schedule"]["interval"] for one in proposed} == {"weekly"}


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
def test_no_checkout_leaves_its_token_behind(file: Path) -> None:
    checkouts = [step for step in steps(file) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False] == []


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


def test_compiler_is_one_version_everywhere() -> None:
    versions = {read(file)["env"]["RUST"] for file in FILES}
    assert len(versions) == 1
    for file in FILES:
        installed = [step["run"] for step in steps(file) if "rustup toolchain install" in step.get("run", "")]
        assert installed
        assert all('"$RUST' in run for run in installed)


def test_wheels_are_built_for_systems_that_a_worker_runs_on_and_each_is_tested() -> None:
    release, ci = (jobs(ROOT / ".github/workflows" / name) for name in ("release.yml", "ci.yml"))
    built = {target.split("-")[0] for target in release["native"]["strategy"]["matrix"]["target"]}
    assert built == {"manylinux", "musllinux", "macos"}
    assert {job["runs-on"].split("-")[0] for job in ci.values()} == {"ubuntu", "macos"}


def test_wheels_are_tried_on_each_interpreter_that_the_project_names() -> None:
    named = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert named <= set(release["smoke"]["strategy"]["matrix"]["python"])
    assert (ROOT / "examples/demo.yaml").is_file()


def test_version_is_chosen_by_hand_and_has_its_section_in_the_changelog() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (step,) = (one for one in steps(ROOT / ".github/workflows/version.yml") if one.get("id") == "version")
    assert '"## [$next]" CHANGELOG.md ||' in step["run"]
    assert set(re.findall(r"semantic-release version .*", step["run"])) == {
        'semantic-release version --print "--$LEVEL")',
        'semantic-release version "--$LEVEL" --no-changelog --no-vcs-release',
    }, "no commit's subject decides"


def test_nothing_is_published_that_was_not_checked() -> None:
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert set(release["check"]["needs"]) == {"smoke", "supply-chain"}
    assert set(release["smoke"]["needs"]) == {"native", "pure"}
    assert release["publish-native"]["needs"] == "check"
    assert release["publish-pure"]["needs"] == "publish-native"
    assert release["image"]["needs"] == "publish-pure"


def test_image_is_pushed_with_provenance_and_components_to_both_registries() -> None:
    image = jobs(ROOT / ".github/workflows/release.yml")["image"]
    (build,) = (step["run"] for step in image["steps"] if "buildx build" in step.get("run", ""))
    assert {"--provenance mode=max", "--sbom true", "--push"} <= set(re.findall(r"--\w+(?: \w+=?\w*)?", build))
    assert re.findall(r'--tag "([^"]+)"', build) == [
        "ghcr.io/${GITHUB_REPOSITORY,,}:${TAG#v}",
        "$GOOGLE_IMAGE:${TAG#v}",
    ]
    google = [step for step in image["steps"] if "google" in step.get("uses", "") or "oauth2" in step.get("run", "")]
    assert [step["if"] for step in google] == ["vars.GOOGLE_IMAGE"] * 2  # without the variable it is GHCR alone
    cloud = yaml.safe_load((ROOT / "deploy/cloudbuild.yaml").read_text(encoding="utf-8"))
    (script,) = (step["args"][1] for step in cloud["steps"] if step["id"] == "image")
    assert "--provenance mode=max --sbom true --push" in script
    assert '--tag "${_IMAGE}:${_TAG}"' in script
    assert "images" not in cloud  # it would push what is not in the engine's own store


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
