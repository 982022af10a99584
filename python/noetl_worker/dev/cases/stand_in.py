"""The tool that stands in for another one in a case: it gives what the case says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.templates.template import has_template
from noetl_worker.tools.contract import ToolContext

_LITERAL: Final = "as it is written: "
"""Before a text, so that the Rust plane reads no number in it (protocol/command.md#rust-plane)."""


@dataclass(frozen=True, slots=True)
class StandInConfig:
    result: Any = None
    error: str | None = None


class StandInTool:
    kind: ClassVar[str] = "stand_in"
    config_model: ClassVar[type] = StandInConfig
    inline: ClassVar[bool] = True

    async def run(self, config: StandInConfig, context: ToolContext) -> ToolResult:
        result = _of_texts(config.result, lambda text: text.removeprefix(_LITERAL))
        if config.error is not None:
            return ToolResult.failure(config.error.removeprefix(_LITERAL), data=result)
        return ToolResult.success(result)


def with_stand_ins(document: Mapping[str, Any], stand_ins: Mapping[str, Mapping[str, JsonValue]]) -> dict[str, Any]:
    """The playbook with these in the place of the tools of steps; the policy of a tool stays."""

    def replaced(step: Mapping[str, Any]) -> Mapping[str, Any]:
        given = stand_ins.get(step["step"])
        if given is None:
            return step
        tool = step.get("tool")
        spec = {"spec": tool["spec"]} if isinstance(tool, dict) and "spec" in tool else {}
        return {**step, "tool": {"kind": StandInTool.kind, **_of_texts(given, _marked), **spec}}

    return {**document, "workflow": [replaced(step) for step in document["workflow"]]}


def _marked(text: str) -> str:
    return text if has_template(text) else _LITERAL + text


def _of_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _of_texts(item, change) for key, item in value.items()}
    return [_of_texts(item, change) for item in value] if isinstance(value, list) else value
