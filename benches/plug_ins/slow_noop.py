"""Kind `noop`, made worse: it shows that the gates of the worker notice (test_worker_gates.py)."""

from __future__ import annotations

import asyncio

from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.noop import NoopConfig, NoopTool

TASKS = 3
CALLS = 10_000
"""More than a worker makes for a command, whatever the limits are by now."""


class SlowNoopTool(NoopTool):
    async def run(self, config: NoopConfig, context: ToolContext) -> ToolResult:
        for _ in range(TASKS):
            await asyncio.create_task(self._wait())
        for number in range(CALLS):
            abs(number)
        return await super().run(config, context)

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(TASKS):
            waiting = loop.create_future()
            loop.call_soon(waiting.set_result, None)
            await waiting
