"""Kind `noop`: does nothing, and returns a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import ToolContext


@dataclass(frozen=True, slots=True)
class NoopConfig:
    """Does nothing and returns its message: a start or join step, or a value made by a template."""

    message: str | None = None
    """Text of the returned data if there is no `result`."""
    result: Any = None
    """The data to return, rendered. Absent: the data that the plane's own worker returns, {"status": "ok", "message":
    message or "noop"} on the Rust plane, {"status": "noop", "step": step} and the `message`, if any, on the Python
    plane."""


class NoopTool:
    kind: ClassVar[str] = "noop"
    config_model: ClassVar[type] = NoopConfig
    inline: ClassVar[bool] = True

    async def run(self, config: NoopConfig, context: ToolContext) -> ToolResult:
        if config.result is not None:
            return ToolResult.success(config.result)
        if not context.command.form.noop_names_step:
            return ToolResult.success({"status": "ok", "message": config.message or "noop"})
        fields = {"message": config.message} if config.message else {}
        return ToolResult.success({"status": "noop", "step": context.command.step, **fields})
