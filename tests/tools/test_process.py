"""Programs in their own process group: real processes, checked in /proc."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.tools.process import process

from .processes import open_descriptors, started, until_gone

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def sh(script: str, **options: Any) -> Coroutine[Any, Any, process.Finished]:
    return process.run_process(["sh", "-c", script], env=process.base_environment(), **options)


def test_output_and_exit_code_come_back(run: Run) -> None:
    finished = run(sh("echo out; echo err >&2; exit 3"))
    assert (finished.exit_code, finished.stdout, finished.stderr) == (3, "out\n", "err\n")
    assert not finished.timed_out


def test_signal_is_a_negative_exit_code(run: Run) -> None:
    finished = run(sh("kill -9 $$"))
    assert finished.exit_code == -9
    assert process.exit_text(finished.exit_code) == "was killed by SIGKILL (out of memory?)"


def test_stdin_is_fed_and_else_empty(run: Run) -> None:
    assert run(sh("cat", stdin=b"abc")).stdout == "abc"
    assert run(sh("cat")).stdout == ""


def test_timeout_stops_the_whole_group_and_keeps_the_output(run: Run) -> None:
    finished = run(sh("echo $$; sleep 60 & sleep 60 | cat", timeout_s=1.0))
    assert finished.timed_out
    assert finished.exit_code == -15
    assert run(until_gone(int(finished.stdout))) == []


def test_group_that_ignores_sigterm_is_killed_after_the_grace(run: Run) -> None:
    script = "trap '' TERM; echo $$; while :; do sleep 1; done"
    began = time.monotonic()
    finished = run(sh(script, timeout_s=1.0, grace_s=0.3))
    assert finished.timed_out
    assert finished.exit_code == -9
    assert 1.3 <= time.monotonic() - began < 5
    assert run(until_gone(int(finished.stdout))) == []


def test_grandchild_that_ignores_sigterm_is_killed_when_its_leader_ends(run: Run) -> None:
    finished = run(sh("echo $$; (trap '' TERM; sleep 60) & wait", timeout_s=1.0))
    assert run(until_gone(int(finished.stdout))) == []


def test_cancelled_task_stops_the_group(run: Run, tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        task = asyncio.ensure_future(sh(f"echo $$ > {tmp_path}/pid; sleep 60 & sleep 60"))
        group = await started(tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await until_gone(group)

    assert run(scenario()) == []


def test_second_cancellation_kills_without_waiting_for_the_grace(run: Run, tmp_path: Path) -> None:
    async def scenario() -> float:
        script = f"trap 'echo 1 > {tmp_path}/term' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
        task = asyncio.ensure_future(sh(script, grace_s=30.0))
        group = await started(tmp_path / "pid")
        task.cancel()
        await started(tmp_path / "term")
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await until_gone(group) == []
        return time.monotonic() - began

    assert run(scenario()) < 5


def test_background_process_holding_the_pipe_does_not_hang_the_call(run: Run) -> None:
    began = time.monotonic()
    finished = run(sh("sleep 60 & echo $$", drain_s=0.2))
    assert time.monotonic() - began < 5
    assert finished.exit_code == 0
    assert run(until_gone(int(finished.stdout))) == []


def test_background_process_with_closed_pipes_is_killed_at_the_end(run: Run) -> None:
    finished = run(sh("sleep 60 >/dev/null 2>&1 & echo $$"))
    assert run(until_gone(int(finished.stdout))) == []


def test_output_over_the_limit_keeps_head_and_tail(run: Run) -> None:
    finished = run(sh("echo first; seq 1 200000; echo last", max_output_bytes=10_000))
    assert finished.stdout.startswith("first\n1\n")
    assert finished.stdout.endswith("200000\nlast\n")
    assert " bytes left out ...]" in finished.stdout
    assert len(finished.stdout) < 10_100
    assert finished.notes[0].startswith("stdout: ")


def test_bytes_that_are_not_utf8_are_replaced_and_noted(run: Run) -> None:
    finished = run(sh(r"printf 'a\377b'"))
    assert finished.stdout == "a\ufffdb"
    assert finished.notes == ("stdout: not UTF-8 at byte 1, unreadable bytes replaced",)


def test_program_that_does_not_exist_is_a_tool_error(run: Run) -> None:
    async def scenario() -> None:
        before = open_descriptors()
        with pytest.raises(ToolError, match="cannot start 'no-such-program'"):
            await process.run_process(["no-such-program"], env=process.base_environment())
        assert open_descriptors() <= before

    run(scenario())


def test_environment_of_the_worker_is_not_handed_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("LC_ALL", "C")
    printed = run(sh("env")).stdout
    assert "hunter2" not in printed
    assert "LC_ALL=C" in printed
    assert "PATH=" in printed


def test_hundred_programs_run_at_once_without_threads_or_leaked_descriptors(run: Run) -> None:
    async def scenario() -> list[str]:
        import threading

        await sh("true")  # the watchdog runs
        before = open_descriptors()
        threads = threading.active_count()
        finished = await asyncio.gather(*(sh(f"echo {number}") for number in range(100)))
        assert threading.active_count() == threads
        assert open_descriptors() == before
        return [one.stdout.strip() for one in finished]

    assert run(scenario()) == [str(number) for number in range(100)]


def test_end_is_noticed_where_there_are_no_pidfds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert run(sh("echo a; exit 2")).exit_code == 2
    assert run(sh("sleep 60", timeout_s=0.1)).timed_out


def test_scratch_directory_is_removed_with_its_content(run: Run) -> None:
    async def scenario() -> str:
        async with process.scratch_directory() as path:
            (Path(path) / "deep").mkdir()
            (Path(path) / "deep" / "file").write_text("x")
        return path

    assert not Path(run(scenario())).exists()
