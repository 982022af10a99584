"""Attacks that the worker's user matters for, once more as nobody: the tests of these files, run under another user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .attack_table import AS_NOBODY
from .commands import LIBRARIES, NOBODY, USERS, interpreter_of, under

PROJECT = Path(__file__, "../../..").resolve()

pytestmark = [
    pytest.mark.skipif("nobody" not in USERS, reason="needs root, setpriv and an interpreter that nobody may start"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def home_of_nobody() -> Iterator[str]:
    home = tempfile.mkdtemp(prefix="tests-as-nobody-")
    os.chown(home, NOBODY, NOBODY)
    yield home
    shutil.rmtree(home)


@pytest.mark.parametrize("file", AS_NOBODY)
def test_attacks_of_the_file_as_nobody(file: str, home_of_nobody: str) -> None:
    """(no attack) Each test of it, by another pytest; root runs them by themselves."""
    pytest_here = [interpreter_of("nobody") or "", "-m", "pytest", "-q", f"--rootdir={PROJECT}"]
    done = subprocess.run(
        under("nobody", [*pytest_here, "-c", str(PROJECT / "pyproject.toml"), str(PROJECT / "tests/security" / file)]),
        env={
            **{name: os.environ[name] for name in ("PATH", "NOETL_WORKER_ENGINE") if name in os.environ},
            "PYTHONPATH": LIBRARIES,
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": home_of_nobody,
            "TMPDIR": home_of_nobody,
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=280,
    )
    if "Permission denied" in done.stderr:
        pytest.skip("nobody may not read this checkout")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
