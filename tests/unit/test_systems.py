"""A system without POSIX processes, stood in for by taking their calls away: what a worker says there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from patience import PATIENCE_S

_WITHOUT_POSIX = """
import os, sys
for name in ("fork", "killpg", "setsid", "geteuid", "getuid", "posix_spawn", "memfd_create", "getxattr"):
    if hasattr(os, name):
        delattr(os, name)
import asyncio
for one in asyncio.SelectorEventLoop.__mro__:
    if "add_signal_handler" in vars(one):
        delattr(one, "add_signal_handler")
from noetl_worker.cli import main, system
system._IS_POSIX = False
sys.argv = ["noetl-worker", *{arguments}]
main()
"""


def without_posix(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = _WITHOUT_POSIX.replace("{arguments}", repr(list(arguments)))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "arguments", [("run",), ("dev", "playbook.yaml"), ("exec", "noop"), ("replay", "7")], ids=lambda given: given[0]
)
def test_worker_says_that_it_needs_posix(arguments: tuple[str, ...]) -> None:
    done = without_posix(*arguments)
    assert done.returncode == 3, done.stderr
    assert "commands need the processes of a POSIX system" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("config",), ("tools",)], ids=lambda given: given[0])
def test_commands_that_run_nothing_work_without_posix(arguments: tuple[str, ...]) -> None:
    done = without_posix(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_works_without_posix() -> None:
    done = without_posix("doctor", "--json", "--nats-url", "nats://127.0.0.1:1", "--server-url", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (5, "")
