"""Attacks for which the worker's user matters, run once more as nobody."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .commands import LIBRARIES, NOBODY, USERS, interpreter_of, under

PROJECT = Path(__file__, "../../..").resolve()

pytestmark = [
    pytest.mark.as_nobody,
    pytest.mark.skipif("nobody" not in USERS, reason="needs root, setpriv and an interpreter that nobody may start"),
    pytest.mark.timeout(1800),  # the tests of a whole file in each
]


AS_NOBODY = (
    "test_descriptors.py",
    "test_files.py",
    "test_names_of_a_database.py",
    "test_outbox_owner.py",
    "test_own_files.py",
    "test_pipes.py",
    "test_resource_shortage.py",
    "test_shortage_of_each_kind.py",
    "test_template_process.py",
)
"""Files whose tests are all run once more as nobody: signals, files, processes of a user."""
BY_ROOT = {
    "test_row_that_another_user_put_there_is_not_taken_over",
    "test_file_of_another_user_in_a_directory_of_ones_own_is_not_taken_over",
    "test_whole_outbox_of_another_user_is_not_taken_over_by_root",
    "test_link_of_another_user_to_a_directory_of_the_workers_is_not_followed",
    "test_row_of_the_same_user_is_taken_over",
    "test_refused_fork_is_a_shortage",
}
"""Root runs these under nobody and a third user itself: nobody could not take another user's rights."""
NO_LIBRARY = re.compile(r"could not import '(\w+)'")
NO_EXTENSION = "is not for DuckDB"
"""The wheel of an extension for another DuckDB than the one that is installed."""


def may_skip(test: str, why: str) -> bool:
    """Whether root's own run of the test is enough, or would be skipped as well."""
    if (library := NO_LIBRARY.search(why)) is not None:
        return importlib.util.find_spec(library[1]) is None
    return test in BY_ROOT or NO_EXTENSION in why


@dataclass(frozen=True)
class Cases:
    """What became of a file's tests under nobody."""

    passed: int
    failed: list[str]
    """What each says that did not pass."""
    skipped: list[tuple[str, str]]
    """(test, why)."""


def cases_of(report: Path, file: str) -> Cases:
    module = f"tests.security.{file.removesuffix('.py')}"
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.get("classname") == module]
    failed = [one.text or "" for case in cases for kind in ("failure", "error") for one in case.iter(kind)]
    skipped = [
        (case.get("name", "").partition("[")[0], " ".join(filter(None, (skip.get("message"), skip.text))))
        for case in cases
        for skip in case.iter("skipped")
    ]
    return Cases(sum(len(case) == 0 for case in cases), failed, skipped)


@pytest.fixture(scope="module")
def report() -> Iterator[Path]:
    """Of one more pytest, which runs all of these files under nobody; root runs them by themselves."""
    files = [str(PROJECT / "tests/security" / file) for file in AS_NOBODY]
    readable = " && ".join(f"test -r '{file}'" for file in files)
    if subprocess.run(under("nobody", ["sh", "-c", readable])).returncode != 0:
        pytest.skip("nobody may not read this checkout")
    home = tempfile.mkdtemp(prefix="tests-as-nobody-")
    os.chown(home, NOBODY, NOBODY)
    written = Path(home, "report.xml")
    options = ["-q", "-n4", "--dist=loadfile", f"--rootdir={PROJECT}", f"--junitxml={written}"]
    options += ["-c", str(PROJECT / "pyproject.toml")]
    try:
        done = subprocess.run(
            under("nobody", [interpreter_of("nobody") or "", "-m", "pytest", *options, *files]),
            env={
                **{name: os.environ[name] for name in ("PATH", "NOETL_WORKER_ENGINE") if name in os.environ},
                "PYTHONPATH": LIBRARIES,
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": home,
                "TMPDIR": home,
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        yield written
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("file", AS_NOBODY)
def test_attacks_of_the_file_as_nobody(file: str, report: Path) -> None:
    """(no attack) Each test of it, by another pytest; root runs them by themselves."""
    cases = cases_of(report, file)
    assert cases.failed == []
    assert cases.passed > 0
    assert [one for one in cases.skipped if not may_skip(*one)] == []
