"""What an integrator has for tests of their own tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from noetl_worker.models import ToolResult
from noetl_worker.testing import MemoryControlPlane, RecordedLogger, arun_tool, run_tool, tool_context
from noetl_worker.tools.contract import ToolContext


@dataclass(frozen=True, slots=True)
class GreetConfig:
    name: str
    auth: str | None = None


class GreetTool:
    """Uses all that a tool may ask of the worker."""

    kind: ClassVar[str] = "greet"
    config_model: ClassVar[type] = GreetConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"who": "name"}

    def __init__(self) -> None:
        self.is_closed = False

    async def run(self, config: GreetConfig, context: ToolContext) -> ToolResult:
        secret = await context.secrets.credential(config.auth) if config.auth else {}
        inner = await context.worker.run_tool("noop", {"result": "{{ word }}"}, context)
        context.logger.info("greeted", name=config.name)
        context.worker.report_progress({"percent": 50})
        await context.worker.control_plane.set_vars({"last": config.name})
        stored = await context.worker.control_plane.put_result(
            "greeting", b'{"a": 1}', source_step=context.command.step
        )
        back = await context.worker.control_plane.resolve_result(stored["ref"])
        return ToolResult.success(
            [config.name, secret.get("token"), inner.data, context.values.render("{{ x }}", {"x": 1}), back]
        )

    async def aclose(self) -> None:
        self.is_closed = True


def test_tool_runs_through_the_registry_with_everything_in_memory() -> None:
    plane, logger, tool, seen = MemoryControlPlane(), RecordedLogger(), GreetTool(), []
    result = run_tool(
        tool,
        {"who": "{{ word }}", "auth": "alias"},
        variables={"word": "ada"},
        credentials={"alias": {"type": "bearer", "token": "t"}},
        control_plane=plane,
        logger=logger,
        report_progress=seen.append,
    )
    assert result.data == ["ada", "t", "ada", 1, {"a": 1}]
    assert result.duration_ms is not None
    assert plane.variables == {"last": "ada"}
    assert seen == [{"percent": 50}]
    assert logger.records == [("info", "greeted", {"name": "ada"})]
    assert tool.is_closed


async def test_inside_a_loop_with_a_context_of_ones_own() -> None:
    context = tool_context(variables={"a": 5}, execution_id=7)
    assert ((await arun_tool("noop", {"result": "{{ a }}"}, context=context)).data, context.command.execution_id) == (
        5,
        7,
    )


def test_stop_is_a_level() -> None:
    context = tool_context()
    assert not context.stop.is_set()
    context.stop.set("shutdown")
    assert context.stop.is_set()
