"""Kind `clock`: does nothing, and tells when it was started."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext


@dataclass(frozen=True, slots=True)
class ClockConfig:
    """Tells when it was started."""


class ClockTool:
    kind: ClassVar[str] = "clock"
    config_model: ClassVar[type] = ClockConfig

    async def run(self, config: ClockConfig, context: ToolContext) -> ToolResult:
        return ToolResult.success({"bench_started_at": time.monotonic()})
