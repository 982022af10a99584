"""CPU per command of the tools that start processes: the worker's, its template process's and the command's own.

`make bench` checks the promise on a few commands; for figures: `python benches/bench_tools.py`.
The promise is a ratio, measured in one run: milliseconds differ from machine to machine.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from measured_process import cpu_s
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.python.packages.uv import uv_program
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.registry import Registry
from tools.wheels import wheel

PROMISED_SHARE = 0.35
"""CPU of a warm python command, in terms of an interpreter that is started for it (measured: 0.13 to 0.17)."""

PACKAGES_MS = 20.0
"""CPU that a warm command with packages may take above one without (measured: about 1 ms)."""

BASIC = Confinement("basic")
PYTHON = {"code": "result = {'n': n + 1}", "input": {"n": 1}}
SHELL = {"command": "true"}


async def cpu_per_command_ms(
    kind: str,
    config: dict[str, object],
    commands: int,
    confinement: Confinement = UNCONFINED,
    settings: ToolSettings | None = None,
) -> float:
    registry = Registry(plugins=False, confinement=confinement, settings=settings or ToolSettings())
    context = tool_context(registry=registry)
    for _ in range(3):
        await registry.run_tool(kind, config, context)  # warm
    before = cpu_s(os.getpid())
    for _ in range(commands):
        result = await registry.run_tool(kind, config, context)
        assert result.exit_code == 0, result
    spent = cpu_s(os.getpid()) - before
    await registry.aclose()
    return spent / commands * 1000


def cpu_of_a_started_interpreter_ms(starts: int) -> float:
    """What each command would cost at least if an interpreter was started for it: the start, and nothing done."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(starts):
        subprocess.run([sys.executable, "-I", "-c", "import json"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / starts * 1000


@pytest.mark.gates
def test_warm_python_command_costs_less_than_a_started_interpreter() -> None:
    warm_ms, started_ms = [], []
    for _ in range(3):  # side by side: a busy machine slows both
        warm_ms.append(asyncio.run(cpu_per_command_ms("python", PYTHON, 40, BASIC)))
        started_ms.append(cpu_of_a_started_interpreter_ms(20))
    assert min(warm_ms) <= PROMISED_SHARE * min(started_ms), (warm_ms, started_ms)


def cpu_with_packages_ms(directory: Path, commands: int) -> float:
    """CPU of a warm command that imports a package of its own."""
    wheel(directory / "wheels", "alpha", "1.0", {"alpha.py": ""})
    config = directory / "uv.toml"
    config.write_text(f'no-index = true\nfind-links = ["{directory / "wheels"}"]\n')
    settings = ToolSettings(python_packages="wheels", packages_dir=str(directory / "packages"), uv_config=str(config))
    whole = {**PYTHON, "deps": {"packages": ["alpha"]}}
    return asyncio.run(cpu_per_command_ms("python", whole, commands, BASIC, settings))


@pytest.mark.gates
@pytest.mark.skipif(uv_program() is None, reason="needs uv")
def test_warm_command_with_packages_costs_little_more_than_one_without(tmp_path: Path) -> None:
    without = min(asyncio.run(cpu_per_command_ms("python", PYTHON, 40, BASIC)) for _ in range(3))
    with_them = min(cpu_with_packages_ms(tmp_path, 40) for _ in range(3))
    assert with_them <= without + PACKAGES_MS, (with_them, without)


def main(tell: Callable[[str], None] = print) -> None:
    for kind, config in (("python", PYTHON), ("shell", SHELL)):
        for level in (UNCONFINED, BASIC):
            spent_ms = min(asyncio.run(cpu_per_command_ms(kind, config, 300, level)) for _ in range(3))
            tell(f"{kind}, isolation {level.level}: {spent_ms:.2f} ms CPU per warm command, all processes together")
    if uv_program() is not None:
        with tempfile.TemporaryDirectory() as directory:
            spent_ms = min(cpu_with_packages_ms(Path(directory), 300) for _ in range(3))
        tell(f"python with packages, isolation basic: {spent_ms:.2f} ms CPU per warm command, all processes together")
    tell(f"an interpreter that is started and does nothing: {cpu_of_a_started_interpreter_ms(100):.2f} ms CPU")


if __name__ == "__main__":
    main()
