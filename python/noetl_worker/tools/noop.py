"""Kind `noop`: does nothing, says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext

__all__ = ["NoopConfig", "NoopTool"]


@dataclass(frozen=True, slots=True)
class NoopConfig:
    """Does nothing and gives back what it was told to: a start or join step, or a value made by a template."""

    message: str = "noop"
    """Text of the data that is given back when there is no `result`."""
    result: Any = None
    """The data to give back, rendered; absent: {"status": "ok", "message": message}."""


class NoopTool:
    """tools.md 2.14, the Rust worker's form (the Python worker answers {"status": "noop", "step"})."""

    kind: ClassVar[str] = "noop"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = NoopConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = False

    async def run(self, config: NoopConfig, context: ToolContext) -> ToolResult:
        if config.result is not None:
            return ToolResult.success(config.result)
        return ToolResult.success({"status": "ok", "message": config.message})
