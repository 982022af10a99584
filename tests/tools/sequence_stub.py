"""A tool that says, fails and waits as it is told to, and sequences made of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult
from noetl_worker.testing import run_tool
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry


@dataclass(frozen=True, slots=True)
class StubConfig:
    say: Any = None
    fail: bool = False
    crash: str | None = None
    fail_times: int = 0
    wait: float = 0.0
    input: dict[str, Any] | None = None
    name: str | None = None


class StubTool:
    """Says what it is told to, fails as often as it is told to; `calls` has what it got."""

    kind: ClassVar[str] = "stub"
    config_model: ClassVar[type] = StubConfig

    def __init__(self) -> None:
        self.calls: list[StubConfig] = []
        self.contexts: list[ToolContext] = []

    async def run(self, config: StubConfig, context: ToolContext) -> ToolResult:
        self.calls.append(config)
        self.contexts.append(context)
        if config.crash == "tool":
            raise ToolError("no connection", kind="connection", retryable=True, code="08006")
        if config.crash == "other":
            raise KeyError("odd")
        if config.wait:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), min(config.wait, context.timeout_s or config.wait))
            except (asyncio.TimeoutError, TimeoutError):
                return ToolResult.timed_out(config.wait)
        if config.fail or len(self.calls) <= config.fail_times:
            return ToolResult.failure("planned", kind="server_error", retryable=True, data={"said": config.say})
        return ToolResult.success(config.say if config.say is not None else config.input)


def go(tasks: Any, *, stub: StubTool | None = None, **context: Any) -> Any:
    registry = Registry([stub or StubTool()], plugins=False)
    return run_tool("task_sequence", tasks, registry=registry, **context)


def rules(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"policy": {"rules": list(entries)}}


ON_ERROR = "{{ output.status == 'error' }}"
