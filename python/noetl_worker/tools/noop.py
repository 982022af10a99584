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
    """`result` is given back as it is; without it the data is {"status": "ok", "message": message}."""

    message: str = "noop"
    result: Any = None


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
