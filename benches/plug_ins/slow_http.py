"""Kind `http`, made worse: it opens a descriptor for each command (test_worker_gates.py)."""

from __future__ import annotations

import os
from typing import ClassVar

from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.http.http import HttpConfig, HttpTool

CALLS = 10_000
"""As of slow_noop.py."""


class SlowHttpTool(HttpTool):
    kind: ClassVar[str] = "slow_http"


async def run(self: HttpTool, config: HttpConfig, context: ToolContext) -> ToolResult:
    os.open(os.devnull, os.O_RDONLY)
    for number in range(CALLS):
        abs(number)
    return await plain_run(self, config, context)


plain_run = HttpTool.run
HttpTool.run = run  # type: ignore[method-assign]
