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
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.python.python_tool import PythonTool
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


STOPS_WHAT_IS_ABOVE = """
import os, signal
above = next(int(line.split()[1]) for line in open(f"/proc/{os.getppid()}/status") if line.startswith("PPid"))
os.kill(above, signal.SIGSTOP)
result = 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_command_under_isolation_stops_its_own_supervisor_alone() -> None:
    """The same with isolation."""
    commands = Commands(Confinement("basic"), start_s=5.0)
    code = "import time\ntime.sleep(1.5)\nresult = 'there'"
    both = await asyncio.gather(commands.run(STOPS_ITS_PARENT), commands.run(code), return_exceptions=True)
    await commands.registry.aclose()
    stopped, other = both
    assert isinstance(stopped, ToolError)
    assert isinstance(other, ToolResult)
    assert other.data == "there"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_command_under_isolation_stops_the_process_that_supervisors_come_from() -> None:
    """It stops its parent's parent."""

    async def body() -> list[ToolResult]:
        commands = Commands(Confinement("basic"))
        assert (await commands.run(STOPS_WHAT_IS_ABOVE)).data == 1
        results = await asyncio.gather(*(commands.run("result = 2") for _ in range(3)))
        await commands.registry.aclose()
        return list(results)

    assert [result.data for result in await body()] == [2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_supervisor_that_its_command_stopped_ends_with_the_worker(tmp_path: Path) -> None:
    """It stops its parent while the worker ends."""
    commands, told = Commands(Confinement("basic")), tmp_path / "told"
    code = f"""
import os, pathlib, signal, subprocess
os.kill(os.getppid(), signal.SIGSTOP)
program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
told = pathlib.Path({str(tmp_path / "being told")!r})
told.write_text(f"{{os.getppid()}} {{os.getpid()}} {{program.pid}}")
told.rename({str(told)!r})
program.wait()
"""
    running = asyncio.ensure_future(commands.run(code))
    while not told.exists() and not running.done():
        await asyncio.sleep(0)
    await commands.registry.aclose()
    with pytest.raises(ToolError):
        await running
    assert all(ends(int(process)) for process in told.read_text().split())


IS_STOPPED = """
import asyncio
from noetl_worker.testing import tool_context
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.python.python_tool import PythonTool
from noetl_worker.tools.registry import Registry

confinement = Confinement("basic")
runner = PythonRunner(confinement=confinement)
registry = Registry([PythonTool(runner, confinement=confinement)], plugins=False)
asyncio.run(registry.run_tool("python", {"code": CODE}, tool_context(registry=registry)))
"""
STOPS_ALL_ABOVE = """
import os, pathlib, signal, subprocess
program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
supervisor = os.getppid()
template = int(pathlib.Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
for above in (template, supervisor):
    os.kill(above, signal.SIGSTOP)
being_told = pathlib.Path(TOLD + ".part")
being_told.write_text(f"{template} {supervisor} {os.getpid()} {program.pid}")
being_told.rename(TOLD)
program.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
async def test_what_a_command_has_stopped_above_it_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"TOLD = {str(told)!r}{STOPS_ALL_ABOVE}"
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", f"CODE = {code!r}{IS_STOPPED}")
    try:
        await until(lambda: told.exists() or worker.returncode is not None, "all is stopped")
    finally:
        worker.kill()
        await worker.wait()
    assert all(ends(int(process)) for process in told.read_text().split())
