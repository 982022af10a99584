"""Programs do not outlive a worker that was killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import noetl_worker
from noetl_worker.tools.process.watchdog import Watchdog
from patience import PATIENCE_S

from .processes import linux_only, members_of, started, until_gone


async def test_killed_worker_leaves_no_program_running(tmp_path: Path) -> None:
    command = f"echo $$ > {tmp_path}/pid; (sleep 1000 & sleep 1000) & wait"
    worker = f"""

from noetl_worker.tools.process.watchdog import watchdog
def guard(group, told=watchdog.guard):
    told(group)
    print("guarded", flush=True)
watchdog.guard = guard
import asyncio
from noetl_worker.tools.process import process
asyncio.run(process.run_process(["sh", "-c", {command!r}], env=process.base_environment()))
"""
    package = Path(noetl_worker.__file__).parent.parent
    process = subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-c", worker],
        env={**os.environ, "PYTHONPATH": str(package), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"guarded\n"  # from then on: it is told right after the start
        group = await started(tmp_path / "pid")
        assert members_of(group)
    finally:
        process.kill()
        process.communicate()
    assert await until_gone(group) == []


def descriptors() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def children() -> set[int]:
    """Of this process, whichever thread started them."""
    lists = (task / "children" for task in Path("/proc/self/task").iterdir())
    return {int(pid) for one in lists for pid in one.read_text().split()}


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


def test_guarded_group_dies_with_the_pipe_and_a_released_one_does_not() -> None:
    guarded, released = sleeper(), sleeper()
    watchdog = Watchdog()
    watchdog.guard(guarded.pid)
    watchdog.guard(released.pid)
    watchdog.release(released.pid)
    watchdog.close()
    assert guarded.wait(PATIENCE_S) == -signal.SIGKILL
    assert released.poll() is None
    released.kill()
    released.wait()


@linux_only
def test_watchdog_whose_pipe_has_a_copy_somewhere_is_ended_and_its_groups_too() -> None:
    """The end of the worker waited for a pipe that never ended."""
    watchdog = Watchdog(end_s=0.05)
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    before = descriptors()
    watchdog.guard(program.pid)
    (pipe,) = descriptors() - before
    copy = os.dup(pipe)
    try:
        watchdog.close()
        assert program.wait(PATIENCE_S) == -signal.SIGKILL
    finally:
        os.close(copy)
        program.kill()


@linux_only
def test_watchdog_that_died_is_started_again_and_knows_everything() -> None:
    first, second = sleeper(), sleeper()
    watchdog, before = Watchdog(), children()
    watchdog.guard(first.pid)
    (process,) = children() - before
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # it has ended, and is the watchdog's to reap
    watchdog.guard(second.pid)
    watchdog.close()
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_watchdog_that_cannot_be_started_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    watchdog = Watchdog()
    with caplog.at_level(logging.WARNING):
        watchdog.guard(os.getpid())
        watchdog.release(os.getpid())
        watchdog.close()
    assert "programs outlive a killed worker" in caplog.text
