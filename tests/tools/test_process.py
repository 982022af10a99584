"""Programs in their own process group: real processes, checked in /proc."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_runner import PythonRunner

from . import warm
from .processes import open_descriptors, started, until_gone, with_time

RUNNERS: list[PythonRunner] = []
anyio_backend = warm.anyio_backend


@pytest.fixture(scope="module", autouse=True)
async def runner(anyio_backend: Any) -> AsyncIterator[None]:
    RUNNERS.append(PythonRunner())
    yield
    await RUNNERS.pop().aclose()


async def sh(script: str, **options: Any) -> process.Finished:
    [used] = RUNNERS
    return await used.run_program("/bin/sh", ["sh", "-c", script], env=process.base_environment(), cwd="/", **options)


async def stopped_late(script: str, **options: Any) -> process.Finished:
    """By its timeout, after it has written something."""
    return await with_time(lambda timeout_s: sh(script, timeout_s=timeout_s, **options), lambda found: found.stdout)


async def test_group_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    script = "trap '' TERM; echo $$; while :; do sleep 1; done"
    began = time.monotonic()
    finished = await stopped_late(script)
    assert finished.timed_out
    assert finished.exit_code == -9
    assert time.monotonic() - began >= 1.8
    assert await until_gone(int(finished.stdout)) == []


async def test_grandchild_that_ignores_sigterm_is_killed_when_its_leader_ends() -> None:
    finished = await stopped_late("echo $$; (trap '' TERM; sleep 1000) & wait")
    assert await until_gone(int(finished.stdout)) == []


async def test_cancelled_task_stops_the_group(tmp_path: Path) -> None:
    task = asyncio.ensure_future(sh(f"echo $$ > {tmp_path}/pid; sleep 1000 & sleep 1000"))
    group = await started(tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until_gone(group) == []


async def test_second_cancellation_kills_without_waiting_for_the_grace(tmp_path: Path) -> None:
    script = f"trap 'echo 1 > {tmp_path}/term' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
    task = asyncio.ensure_future(sh(script))
    group = await started(tmp_path / "pid")
    task.cancel()
    await started(tmp_path / "term")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until_gone(group) == []


@pytest.mark.parametrize("pipes", ["", ">/dev/null 2>&1"], ids=["held", "closed"])
async def test_background_process_does_not_hang_the_call_and_is_killed_at_the_end(pipes: str) -> None:
    finished = await sh(f"sleep 1000 {pipes} & echo $$")
    assert finished.exit_code == 0
    assert await until_gone(int(finished.stdout)) == []


async def test_output_over_the_limit_keeps_head_and_tail() -> None:
    finished = await sh("echo first; seq 1 200000; echo last", max_output_bytes=10_000)
    assert finished.stdout.startswith("first\n1\n")
    assert finished.stdout.endswith("200000\nlast\n")
    assert " bytes left out ...]" in finished.stdout
    assert len(finished.stdout) < 10_100
    assert finished.notes[0].startswith("stdout: ")


async def test_bytes_that_are_not_utf8_are_replaced_and_noted() -> None:
    finished = await sh(r"printf 'a\377b'")
    assert finished.stdout == "a\ufffdb"
    assert finished.notes == ("stdout: not UTF-8 at byte 1, unreadable bytes replaced",)


async def test_program_that_does_not_exist_is_a_tool_error() -> None:
    before = open_descriptors()
    runner = PythonRunner()
    with pytest.raises(ToolError, match="cannot start 'no-such-program'"):
        await runner.run_program("/no-such-program", ["no-such-program"], env={}, cwd="/")
    await runner.aclose()
    assert open_descriptors() <= before


def test_environment_of_a_command_has_another_variable_only_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv is given the authorities that the worker trusts; no command is."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/company.pem")
    assert "SSL_CERT_FILE" not in process.base_environment()
    assert process.base_environment("SSL_CERT_FILE")["SSL_CERT_FILE"] == "/etc/company.pem"
