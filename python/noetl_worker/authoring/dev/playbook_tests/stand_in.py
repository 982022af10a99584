"""The tool `stand_in`. In a test, this tool replaces a step's own tool and returns the result from the tests file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, with_scalars
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools.contract import ToolContext

_LITERAL: Final = "as it is written: "
"""Prefix that keeps the Rust plane from converting a text in a stand-in's result to a number
(protocol/command.md#rust-plane). `StandInTool` removes the prefix before it returns the result."""


@dataclass(frozen=True, slots=True)
class StandInConfig:
    result: Any = None
    error: str | None = None


class StandInTool:
    kind: ClassVar[str] = "stand_in"
    config_model: ClassVar[type] = StandInConfig
    inline: ClassVar[bool] = True

    async def run(self, config: StandInConfig, context: ToolContext) -> ToolResult:
        result = with_scalars(config.result, _unmarked)
        if config.error is not None:
            return ToolResult.failure(_unmarked(config.error), data=result)
        return ToolResult.success(result)


def with_stand_ins(document: Mapping[str, Any], stand_ins: Mapping[str, Mapping[str, JsonValue]]) -> dict[str, Any]:
    """Return the playbook in which tools are replaced by stand-ins. A tool's `spec`, with its policy, stays.

    Args:
        stand_ins: `result` and `error` of each stand-in, by the step's name.
    """

    def replaced(step: Mapping[str, Any]) -> Mapping[str, Any]:
        given = stand_ins.get(step["step"])
        if given is None:
            return step
        tool = step.get("tool")
        spec = {"spec": tool["spec"]} if isinstance(tool, dict) and "spec" in tool else {}
        return {**step, "tool": {"kind": StandInTool.kind, **with_scalars(given, _marked), **spec}}

    return {**document, "workflow": [replaced(step) for step in document["workflow"]]}


def _marked(value: JsonValue) -> JsonValue:
    return _LITERAL + value if isinstance(value, str) and not has_template(value) else value


def _unmarked(value: JsonValue) -> JsonValue:
    return value.removeprefix(_LITERAL) if isinstance(value, str) else value
