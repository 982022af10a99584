"""A Python command stops the process that Python commands come from."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult
from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.python.python import PythonTool
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.registry import Registry
from patience import until

from .commands import ends

STOPS_ITS_PARENT = "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nresult = 1"


class Commands:
    """Python commands of one worker, on a loop of its own."""

    def __init__(self, confinement: Confinement = UNCONFINED, *, start_s: float = 30.0) -> None:
        runner = PythonRunner(confinement=confinement, answer_s=0.5, start_s=start_s)
        self.registry = Registry([PythonTool(runner, confinement=confinement)], plugins=False)

    async def run(self, code: str) -> ToolResult:
        return await self.registry.run_tool("python", {"code": code}, tool_context(registry=self.registry))

    async def template(self) -> int:
        found = (await self.run("import os\nresult = os.getppid()")).data
        assert isinstance(found, int)
        return found


@pytest.fixture
def commands() -> Commands:
    return Commands()


async def test_command_that_stops_the_template_process_fails_and_the_next_one_runs(commands: Commands) -> None:
    """A command stops its parent (without isolation)."""
    first = await commands.template()
    with pytest.raises(ToolError, match="did not answer and was replaced") as caught:
        await commands.run(STOPS_ITS_PARENT)
    assert (caught.value.kind, caught.value.retryable) == ("process", True)
    second = await commands.template()
    await commands.registry.aclose()
    assert first != second
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_commands_that_had_not_started_run_in_the_next_template_process(commands: Commands) -> None:
    os.kill(await commands.template(), signal.SIGSTOP)
    results = await asyncio.gather(*(commands.run(f"result = {number}") for number in range(5)))
    await commands.registry.aclose()
    assert [result.data for result in results] == [0, 1, 2, 3, 4]


async def test_cancelled_command_does_not_wait_for_a_stopped_template_process(commands: Commands) -> None:
    os.kill(await commands.template(), signal.SIGSTOP)
    waiting = asyncio.ensure_future(commands.run("result = 1"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await commands.registry.aclose()


async def test_worker_that_was_held_up_itself_keeps_its_template_process(commands: Commands) -> None:
    first = await commands.template()
    os.kill(first, signal.SIGSTOP)  # as when the whole container is frozen
    waiting = asyncio.ensure_future(commands.run("import os\nresult = os.getppid()"))
    await asyncio.sleep(0)
    time.sleep(1.2)  # noqa: ASYNC251 - the loop is to be held up
    os.kill(first, signal.SIGCONT)
    second = (await waiting).data
    await commands.registry.aclose()
    assert first == second


TELLS = """
import os, pathlib, subprocess
program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
supervisor = os.getppid()
template = int(pathlib.Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
being_told = pathlib.Path(TOLD + ".part")
being_told.write_text(f"{template} {supervisor} {os.getpid()} {program.pid}")
being_told.rename(TOLD)
program.wait()
"""
"""The processes above it, which Linux 6.12 lets no command signal: the tests do it."""


async def running(commands: Commands, directory: Path) -> tuple[asyncio.Future[ToolResult], list[int]]:
    """A command that does not end by itself; the template, its supervisor, the command and its program."""
    told = directory / "told"
    command = asyncio.ensure_future(commands.run(f"TOLD = {str(told)!r}{TELLS}"))
    await until(lambda: told.exists() or command.done(), "the command runs")
    return command, [int(process) for process in told.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_stopped_supervisor_ends_its_own_command_alone(tmp_path: Path) -> None:
    """The same with isolation."""
    commands = Commands(Confinement("basic"), start_s=5.0)
    command, (_, supervisor, *_) = await running(commands, tmp_path)
    beside = asyncio.ensure_future(commands.run("import time\ntime.sleep(1.5)\nresult = 'there'"))
    os.kill(supervisor, signal.SIGSTOP)
    with pytest.raises(ToolError):
        await command
    assert (await beside).data == "there"
    await commands.registry.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_commands_run_although_the_process_that_supervisors_come_from_is_stopped(tmp_path: Path) -> None:
    """The process that supervisors come from is stopped."""
    commands = Commands(Confinement("basic"))
    command, (template, *_) = await running(commands, tmp_path)
    os.kill(template, signal.SIGSTOP)
    results = await asyncio.gather(*(commands.run("result = 2") for _ in range(3)))
    command.cancel()
    await commands.registry.aclose()
    assert [result.data for result in results] == [2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_stopped_supervisor_ends_with_the_worker(tmp_path: Path) -> None:
    """A supervisor is stopped while the worker ends."""
    commands = Commands(Confinement("basic"))
    command, processes = await running(commands, tmp_path)
    os.kill(processes[1], signal.SIGSTOP)
    await commands.registry.aclose()
    with pytest.raises(ToolError):
        await command
    assert all(ends(process) for process in processes)


IS_STOPPED = """
import asyncio
from noetl_worker.testing import tool_context
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.kinds.python.python import PythonTool
from noetl_worker.tools.registry import Registry

confinement = Confinement("basic")
runner = PythonRunner(confinement=confinement)
registry = Registry([PythonTool(runner, confinement=confinement)], plugins=False)
asyncio.run(registry.run_tool("python", {"code": CODE}, tool_context(registry=registry)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_what_is_stopped_above_a_command_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"TOLD = {str(told)!r}{TELLS}"
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", f"CODE = {code!r}{IS_STOPPED}")
    try:
        await until(lambda: told.exists() or worker.returncode is not None, "the command runs")
        processes = [int(process) for process in told.read_text().split()]
        for above in processes[:2]:
            os.kill(above, signal.SIGSTOP)
    finally:
        worker.kill()
        await worker.wait()
    assert all(ends(process) for process in processes)
