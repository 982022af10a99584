"""Kind `python` in another interpreter than the worker's own: forked from a warm template of that interpreter."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interpreters import WANTED, candidates, works
from noetl_worker.errors import ToolError
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.testing import tool_context
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.python import other_interpreters
from noetl_worker.tools.python.interpreter import template_program
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings

from .processes import linux_only, started, until_gone, with_time

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
ONCE = "open('/proc/self/cmdline').read().count('once')"
"""Whether a command's interpreter was started for it alone."""


def that_waits(place: Path) -> str:
    return f"import os, time\nopen({str(place)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"


class Worker:
    def __init__(self, level: str) -> None:
        settings = tool_settings(NOETL_WORKER_PYTHONS="*")
        self.registry = Registry(plugins=False, confinement=Confinement(level), settings=settings)

    async def run(self, interpreter: Path, code: str, **config: Any) -> ToolResult:
        given = {"code": code, "python": str(interpreter), **config}
        context = tool_context(registry=self.registry, kind="python", timeout_s=config.pop("timeout", None))
        return await self.registry.run_tool("python", given, context)

    async def data(self, interpreter: Path, code: str, **config: Any) -> Any:
        ran = await self.run(interpreter, f"import os, sys\n{code}", **config)
        assert ran.error is None, ran
        return ran.data


@pytest.fixture(params=["basic", "off"])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    made = Worker(request.param)
    yield made
    await made.registry.aclose()


OFF = pytest.mark.parametrize("worker", ["off"], indirect=True)
"""A worker without isolation, where the parent of a command is the template."""


def environment(place: Path, *options: str, python: str = sys.executable) -> Path:
    """Return the interpreter of a new virtual environment; with `--copies` it is a program of its own."""
    subprocess.run([python, "-m", "venv", "--without-pip", *options, str(place)], check=True)
    return place / "bin/python3"


def copied(place: Path) -> Path:
    """Return the same as `environment(place, "--copies")` makes, in a hundredth of its time."""
    own, made = Path(sys.executable).resolve(), place / "bin/python3"
    (place / f"lib/python{OWN}/site-packages").mkdir(parents=True)
    made.parent.mkdir()
    (place / "pyvenv.cfg").write_text(f"home = {own.parent}\ninclude-system-site-packages = false\n")
    shutil.copy(own, made)
    if template_program(str(made)) is None:
        pytest.skip("needs a temporary directory that only root or the owner of the environment can change")
    return made


async def test_second_command_is_forked_from_the_template_of_the_first(worker: Worker, tmp_path: Path) -> None:
    other = copied(tmp_path / "other")
    parents = [await worker.data(other, "result = [os.getppid(), sys.executable, sys.prefix]") for _ in range(2)]
    assert parents[0] == parents[1]
    assert parents[0][1:] == [str(other), str(tmp_path / "other")]
    own = await worker.data(Path(sys.executable), "result = os.getppid()")
    assert own != parents[0][0]


SEEN = """
import builtins, json, site, sys, sysconfig
result = {
    "path": sys.path,
    "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix, site.PREFIXES],
    "executable": sys.executable,
    "libraries": [sysconfig.get_path("purelib"), site.getsitepackages()],
    "builtins": sorted({"exit", "quit", "help", "copyright", "license"} & vars(builtins).keys()),
    "user": bool(site.ENABLE_USER_SITE),
    "customized": "sitecustomize" in sys.modules,
    "pth": getattr(sys, "of_the_pth", None),
}
"""


def forms_of(python: str, place: Path) -> list[Path]:
    """The interpreter itself, and virtual environments of it that run code of their own at a start."""
    forms: tuple[tuple[str, ...], ...] = ((), ("--system-site-packages",), ("--copies",))
    made = [environment(place / f"{number}", *form, python=python) for number, form in enumerate(forms)]
    for one in made:
        [packages] = one.parent.parent.glob("lib/python3.*/site-packages")
        (packages / "some.pth").write_text("import sys; sys.of_the_pth = sys.prefix\n")
        (packages / "sitecustomize.py").write_text("")
    return [Path(python), *made]


@pytest.mark.parametrize(
    "version", [OWN, *(pytest.param(one, marks=pytest.mark.sweep) for one in WANTED if one != OWN)]
)
async def test_environment_is_as_if_its_interpreter_had_been_started(
    worker: Worker, version: str, tmp_path: Path
) -> None:
    own = [os.path.realpath(sys.executable)] if version == OWN else candidates(version)
    python = next((one for one in own if works(one, version)), None)
    if python is None:
        pytest.skip(f"needs a python{version}")
    for interpreter in forms_of(python, tmp_path):
        argv = [str(interpreter), "-I", "-c", SEEN + "print(json.dumps(result))"]
        ran = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, cwd="/")
        expected = json.loads(ran.stdout)
        seen = await worker.data(interpreter, SEEN)
        cwd, *seen["path"] = seen["path"]
        assert Path(cwd).name.startswith("noetl-")
        assert seen == expected, interpreter


@linux_only
async def test_what_an_environment_runs_at_a_start_runs_in_each_command_and_not_in_the_template(
    worker: Worker, tmp_path: Path
) -> None:
    other = copied(tmp_path / "other")
    [packages] = other.parent.parent.glob("lib/python3.*/site-packages")
    (packages / "some.pth").write_text("import os, sys; sys.ran_in = os.getpid()\n")
    code = "result = [sys.ran_in == os.getpid(), open('/proc/self/status').read().count('NoNewPrivs:\\t1')]"
    confined = int(worker.registry.confinement.is_on)
    for _ in range(2):
        assert await worker.data(other, code) == [True, confined]
    (packages / "some.pth").unlink()
    assert await worker.data(other, "result = hasattr(sys, 'ran_in')") is False


@OFF
@linux_only
async def test_fifth_interpreter_ends_the_template_that_was_used_least_recently(worker: Worker, tmp_path: Path) -> None:
    first, second, *others = [copied(tmp_path / str(number)) for number in range(other_interpreters.MOST_WARM + 1)]
    templates = {one: await worker.data(one, "result = os.getppid()") for one in (first, second, *others[:-1])}
    assert await worker.data(first, "result = os.getppid()") == templates[first]
    await worker.data(others[-1], "result = 1")
    assert await until_gone(templates.pop(second)) == []
    for interpreter, template in templates.items():
        assert await worker.data(interpreter, "result = os.getppid()") == template
    await worker.registry.aclose()
    for template in templates.values():
        assert await until_gone(template) == []


@linux_only
async def test_interpreter_is_started_for_its_command_while_all_templates_are_in_use(
    worker: Worker, tmp_path: Path
) -> None:
    *used, other = (copied(tmp_path / str(number)) for number in range(other_interpreters.MOST_WARM + 1))
    gates = [tmp_path / f"go-{number}" for number in range(len(used))]
    for gate in gates:
        os.mkfifo(gate)
    codes = (f"open({str(gate)!r}).read()\nresult = {ONCE}" for gate in gates)
    running = [asyncio.ensure_future(worker.data(one, code)) for one, code in zip(used, codes, strict=True)]
    opened = [await asyncio.to_thread(open, gate, "w") for gate in gates]
    assert await worker.data(other, f"result = {ONCE}") == 1
    for gate in opened:
        gate.close()
    assert await asyncio.gather(*running) == [0] * len(used)
    assert await worker.data(other, f"result = {ONCE}") == 0


@linux_only
async def test_program_that_a_command_could_change_has_no_template(worker: Worker, tmp_path: Path) -> None:
    other = copied(tmp_path / "other")
    assert await worker.data(other, f"result = {ONCE}") == 0
    for place, mode in ((other.parent, 0o777), (other.parent.parent, 0o775), (other, 0o757)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert await worker.data(other, f"result = {ONCE}") == 1, place
        place.chmod(before)
    renamed = other.with_name("my-program")
    renamed.symlink_to(other)
    assert await worker.data(renamed, f"result = {ONCE}") == 0  # the program behind it decides
    other.rename(other.with_name("another-name"))
    other.symlink_to("another-name")
    assert await worker.data(other, f"result = {ONCE}") == 1


@linux_only
async def test_program_that_is_no_interpreter_says_so_itself(worker: Worker, tmp_path: Path) -> None:
    """A template cannot be had of it, and without one the command would be returned for ever."""
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\necho 'I am a shell' >&2\nexit 3\n")
    program.chmod(0o755)
    ran = await worker.run(program, "result = 1")
    assert (ran.exit_code, ran.stderr) == (3, "I am a shell\n")
    program.unlink()
    program.symlink_to(program)
    with pytest.raises(ToolError, match=rf"cannot start the interpreter .{program}"):
        await worker.run(program, "result = 1")


@OFF
@linux_only
async def test_program_that_was_replaced_has_a_template_of_its_own(worker: Worker, tmp_path: Path) -> None:
    other = copied(tmp_path / "other")
    before = await worker.data(other, "result = os.getppid()")
    new = other.with_name("new")
    new.write_bytes(other.read_bytes())
    new.chmod(0o755)
    new.rename(other)
    after = await worker.data(other, "result = [os.getppid(), os.path.realpath('/proc/self/exe')]")
    assert after[0] != before
    assert after[1] == str(other.resolve())


@linux_only
async def test_command_that_is_cancelled_or_out_of_time_ends(worker: Worker, tmp_path: Path) -> None:
    other, place = copied(tmp_path / "other"), tmp_path / "pid"
    await worker.data(other, "result = 1")
    running = asyncio.ensure_future(worker.run(other, that_waits(place)))
    group = await started(place)
    running.cancel()
    await asyncio.wait({running})
    assert await until_gone(group) == []
    place.unlink()
    late = await with_time(lambda s: worker.run(other, that_waits(place), timeout=s), lambda _: place.exists())
    assert late.status is ToolStatus.TIMEOUT
    assert await until_gone(await started(place)) == []
