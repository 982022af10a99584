"""`python` steps with packages and in another interpreter, their first run and later ones: packages.json, for
docs/performance.md. The index is a directory of wheels that this program writes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import performance_page
from bench_tools import BASIC, python_forms
from bench_worker import where_and_when
from measured_process import cpu_s
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

_ROUNDS: Final = 5
_LATER: Final = 40


async def first_and_later_ms(config: dict[str, object], settings: ToolSettings) -> tuple[float, float]:
    """CPU of the first run in a new worker, and of each later one."""
    registry = Registry(plugins=False, confinement=BASIC, settings=settings)
    context = tool_context(registry=registry, kind="python")

    async def spent_ms(commands: int) -> float:
        before = cpu_s(os.getpid())
        for _ in range(commands):
            result = await registry.run_tool("python", config, context)
            assert result.exit_code == 0, result
        return (cpu_s(os.getpid()) - before) / commands * 1000

    first, later = await spent_ms(1), await spent_ms(_LATER)
    await registry.aclose()
    return first, later


def main() -> None:
    found: dict[str, Any] = {**where_and_when(), "rounds": _ROUNDS, "later": _LATER}
    with tempfile.TemporaryDirectory() as folder:
        forms, settings = python_forms(Path(folder))
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
        for _ in range(_ROUNDS):
            for name, config in forms.items():
                shutil.rmtree(settings.packages_dir, ignore_errors=True)
                spent[name].append(asyncio.run(first_and_later_ms(config, settings)))
    found["cpu_ms"] = {
        name: {"first": min(first for first, _ in rounds), "later": min(later for _, later in rounds)}
        for name, rounds in spent.items()
    }
    performance_page.keep("packages", found)


if __name__ == "__main__":
    main()
