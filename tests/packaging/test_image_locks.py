"""What the image is made of: bases by digest, packages by hash, in versions that the project takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
LOCK, BUILD_LOCK = "deploy/requirements.txt", "deploy/build-requirements.txt"
tomllib: Any = pytest.importorskip("tomllib")  # Python 3.11
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")


def entries(file: str) -> dict[str, tuple[str, list[str]]]:
    """Package -> (version, hashes)."""
    text = re.sub(r"^#.*\n", "", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for entry in text.replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"([\w.-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+)", entry.strip())
        assert match is not None, entry
        found[match[1]] = (match[2], match[3].split())
    return found


def wanted() -> list[str]:
    """The requirements of the project and of the extras that the image has."""
    extras = re.search(r"^IMAGE_EXTRAS \?= (.+)$", MAKEFILE, re.MULTILINE)
    assert extras is not None
    of_extras = [one for extra in extras[1].split() for one in PROJECT["project"]["optional-dependencies"][extra]]
    return [*PROJECT["project"]["dependencies"], *of_extras]


def test_bases_are_named_by_version_and_digest() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(
        re.fullmatch(r"rust:1\.\d+\.\d+-slim-bookworm|python:3\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", one)
        for one in bases
    )
    compiler = re.search(r'RUST: "(.+?)"', (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert compiler is not None
    assert bases[0].startswith(f"rust:{compiler[1]}-")


def test_nothing_is_installed_from_an_index_without_its_hash() -> None:
    lines = re.findall(r"\bpip3? (?:install|wheel) [^&]*", DOCKERFILE.replace("\\\n", ""))
    assert len(lines) == 4
    for line in lines:
        assert "--require-hashes" in line or "--no-index" in line, line
        assert "--only-binary :all:" in line or {"--no-deps"} <= set(line.split()), line
    assert "-m build --no-isolation" in DOCKERFILE, "what a build fetches by itself has no hash"


@pytest.mark.parametrize(
    ("file", "of", "python"),
    [(LOCK, wanted(), "3.13"), (BUILD_LOCK, PROJECT["dependency-groups"]["image"], "3.11")],
    ids=["image", "build"],
)
def test_lock_has_what_is_wanted_in_versions_that_are_taken(file: str, of: list[str], python: str) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    locked = entries(file)
    machine = {"python_version": python, "platform_machine": "aarch64", "sys_platform": "linux"}
    for one in map(requirements.Requirement, of):
        if one.marker is None or one.marker.evaluate({**machine, "platform_python_implementation": "CPython"}):
            assert one.specifier.contains(locked[one.name.lower()][0]), str(one)
    assert f"--python-version {python} " in MAKEFILE
    if file == LOCK:
        base = re.search(r"^FROM python:(3\.\d+)-", DOCKERFILE, re.MULTILINE)
        assert base is not None
        assert base[1] == python
