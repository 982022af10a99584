"""A system without POSIX processes, stood in for by taking their calls away: what a worker says there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from patience import PATIENCE_S

_WITHOUT_POSIX = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
for name in ("fork", "killpg", "setsid", "geteuid", "getuid", "posix_spawn", "memfd_create", "getxattr"):
    if hasattr(os, name):
        delattr(os, name)
import asyncio
for one in asyncio.SelectorEventLoop.__mro__:
    if "add_signal_handler" in vars(one):
        delattr(one, "add_signal_handler")
from noetl_worker.cli import main, system
system._IS_POSIX = False
ended = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["noetl-worker", *arguments]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            ended.append((end.code, said.getvalue()))
print(json.dumps(ended))
"""
NOWHERE = ("--nats-url", "nats://127.0.0.1:1", "--server-url", "http://127.0.0.1:1")
NEEDS_POSIX = [["run"], ["dev", "playbook.yaml"], ["exec", "noop"], ["replay", "7"]]
RUNS_NOTHING = {("--help",): 0, ("config",): 0, ("tools",): 0, ("doctor", "--json", *NOWHERE): 5}


@pytest.fixture(scope="module")
def ended() -> list[Any]:
    """The exit code and stderr of each command, all in one interpreter: most of a command is its start."""
    commands = [*NEEDS_POSIX, *RUNS_NOTHING]
    program = [sys.executable, "-c", _WITHOUT_POSIX, json.dumps(commands)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S)
    found: list[Any] = json.loads(done.stdout)
    assert len(found) == len(commands), done.stderr
    return found


def test_worker_says_that_it_needs_posix(ended: list[Any]) -> None:
    for code, said in ended[: len(NEEDS_POSIX)]:
        assert code == 3, said
        assert "commands need the processes of a POSIX system" in said


def test_commands_that_run_nothing_work_without_posix(ended: list[Any]) -> None:
    assert ended[len(NEEDS_POSIX) :] == [[code, ""] for code in RUNS_NOTHING.values()]
