"""The simulated tool: one side effect, some virtual seconds, an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext
from simulate.clock import STRAND, Process


@dataclass(frozen=True, slots=True)
class Simulated:
    """Takes `seconds`, then ends as told."""

    seconds: float = 0.0
    """How long it runs."""
    ending: str = "success"
    """success, error (a failure that is returned) or raises."""
    clings_s: float = 0.0
    """How long it goes on after it was cancelled."""
    timeout: float | None = None
    """Seconds until it is cancelled."""
    chars: int = 0
    """Size of its result, beside a few words; above 100 kB it travels by reference."""


class SimulatedTool:
    kind: ClassVar[str] = "simulated"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = Simulated
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, on_run: Callable[[Process, str], None]) -> None:
        self._on_run = on_run

    async def run(self, config: Simulated, context: ToolContext) -> ToolResult:
        strand = STRAND.get()
        assert strand is not None, "a tool outside of every process"
        self._on_run(strand.process, str(context.command.command_id))
        try:
            await asyncio.sleep(config.seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(config.clings_s)
            raise
        if config.ending == "raises":
            raise ToolError("told to raise")
        if config.ending == "error":
            return ToolResult.failure("told to fail")
        return ToolResult.success({"seconds": config.seconds, "text": ("word " * config.chars)[: config.chars]})
