"""A system without POSIX processes, stood in for by taking their calls away: what a worker says there."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT_POSIX = """
import os, sys
for name in ("fork", "killpg", "setsid", "geteuid", "getuid", "posix_spawn", "memfd_create", "getxattr"):
    if hasattr(os, name):
        delattr(os, name)
from noetl_worker.cli import main, system
system._IS_POSIX = False
sys.argv = ["noetl-worker", *{arguments}]
main()
"""


def without_posix(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = _WITHOUT_POSIX.replace("{arguments}", repr(list(arguments)))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("arguments", [("run",), ("dev", "playbook.yaml")], ids=lambda given: given[0])
def test_worker_says_that_it_needs_posix(arguments: tuple[str, ...]) -> None:
    done = without_posix(*arguments)
    assert done.returncode == 3, done.stderr
    assert "commands need the processes of a POSIX system" in done.stderr


def test_commands_that_run_nothing_work_without_posix() -> None:
    done = without_posix("--help")
    assert done.returncode == 0, done.stderr
