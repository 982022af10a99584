"""The first command of README, typed in a fresh clone on a path with a space: the demo runs to its end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from integration.page_commands import ROOT, commands_of, fresh_clone
from integration.processes import environment, program

pytestmark = pytest.mark.pages

SCRIPT = Path(sys.executable).with_name("noetl-worker")
OF_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "DEMO_VENV", "VENV")
"""What the make that runs the tests hands down."""


def clone(into: Path) -> None:
    """This repository as it is committed, with this interpreter's environment as its `.venv`: nothing is fetched."""
    fresh_clone(into)
    (into / ".venv").mkdir()
    (into / ".venv/bin").symlink_to(SCRIPT.parent, target_is_directory=True)
    (into / ".venv/.stamp").touch()  # after every file of the clone: what make goes by


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no repository to clone")
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.skipif(not SCRIPT.exists(), reason="no environment with the command: make would ask a package registry")
def test_demo_of_the_first_page_completes_in_a_clone(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="noetl-worker dev reads YAML")
    lines = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
    (demo,) = (line.text for line in lines if line.text.startswith("make demo"))
    clone(tmp_path / "a clone")
    variables = {name: value for name, value in environment().items() if name not in OF_MAKE}
    variables |= {"PYTHONPATH": str(tmp_path / "a clone/python"), "NOETL_WORKER_ENGINE": "python"}
    done = program(["bash", "-c", demo], variables, tmp_path / "a clone")
    assert done.code == 0, done.out + done.err
    assert "pip install" not in done.out
    assert "COMPLETED" in done.out
