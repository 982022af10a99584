"""Kind `noop`: does nothing, and returns a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import ToolContext


@dataclass(frozen=True, slots=True)
class NoopConfig:
    """Does nothing, and returns `result` or a short message. Use noop for a step that only starts or joins branches, or
    to compute a value with a template."""

    message: str | None = None
    """Text for the field `message` of the returned data. A step with `result` does not return this text."""
    result: Any = None
    """The data to return; templates in the data are rendered. Absent: the data of NoETL's published worker. On the Rust
    plane the data is {"status": "ok", "message": message or "noop"}. On the Python plane the data is {"status": "noop",
    "step": step}, and `message` if given."""


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
