"""The tool that stands in for another one in a case: it gives what the case says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext


@dataclass(frozen=True, slots=True)
class StandInConfig:
    result: Any = None
    error: str | None = None


class StandInTool:
    kind: ClassVar[str] = "stand_in"
    config_model: ClassVar[type] = StandInConfig
    inline: ClassVar[bool] = True

    async def run(self, config: StandInConfig, context: ToolContext) -> ToolResult:
        if config.error is not None:
            return ToolResult.failure(config.error, data=config.result)
        return ToolResult.success(config.result)


def with_stand_ins(document: Mapping[str, Any], stand_ins: Mapping[str, Mapping[str, JsonValue]]) -> dict[str, Any]:
    """The playbook with these in the place of the tools of steps; the policy of a tool stays."""

    def replaced(step: Mapping[str, Any]) -> Mapping[str, Any]:
        given = stand_ins.get(step["step"])
        if given is None:
            return step
        tool = step.get("tool")
        spec = {"spec": tool["spec"]} if isinstance(tool, dict) and "spec" in tool else {}
        return {**step, "tool": {"kind": StandInTool.kind, **given, **spec}}

    return {**document, "workflow": [replaced(step) for step in document["workflow"]]}
