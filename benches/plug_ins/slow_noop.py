"""Kind `noop`, made worse: it shows that the gates of the worker notice (test_worker_gates.py)."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.noop.noop import NoopConfig, NoopTool

TASKS = 3
CALLS = 10_000
"""More than a worker makes for a command, whatever the limits are by now."""


class SlowNoopTool(NoopTool):
    kind: ClassVar[str] = "slow_noop"


async def run(self: NoopTool, config: NoopConfig, context: ToolContext) -> ToolResult:
    for _ in range(TASKS):
        await asyncio.create_task(_wait())
    for number in range(CALLS):
        abs(number)
    return await plain_run(self, config, context)


async def _wait() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(TASKS):
        waiting = loop.create_future()
        loop.call_soon(waiting.set_result, None)
        await waiting


plain_run = NoopTool.run
NoopTool.run = run  # type: ignore[method-assign]
