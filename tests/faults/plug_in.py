"""Tools of an integrator, by entry point: what no tool of ours does, and a test needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from faults.scene import inside

KINDS: Final = ("block", "nap")
_TOOLS: Final = '''
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from noetl_worker.models import ToolResult


@dataclass(frozen=True, slots=True)
class SecondsConfig:
    """A time."""
    seconds: float = 0.0
    """How long."""


class _Seconds:
    config_model = SecondsConfig
    aliases = ()
    field_aliases = {}
    raw_fields = frozenset()


class Block(_Seconds):
    """Blocks the event loop."""
    kind = "block"

    async def run(self, config, context):
        Path("blocked").touch()
        time.sleep(config.seconds)
        return ToolResult.success({})


class Nap(_Seconds):
    """Takes its time, and nearly no processor."""
    kind = "nap"

    async def run(self, config, context):
        await asyncio.sleep(config.seconds)
        return ToolResult.success({})
'''


def install_tools(directory: Path, **changes: str) -> dict[str, str]:
    """Write the distribution; the environment of a worker that finds it (`changes` as in `inside`)."""
    (directory / "seconds_tools.py").write_text(_TOOLS)
    info = directory / "seconds_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: seconds-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[noetl_worker.tools]\nblock = seconds_tools:Block\nnap = seconds_tools:Nap\n"
    )
    given = inside(TASKS=str(directory / "worker.tasks"), **changes)
    return {**given, "PYTHONPATH": f"{directory}:{given['PYTHONPATH']}"}
