"""Kind `cursor_worker`: what the Python plane makes of a cursor loop. Known, and refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import ToolContext

__all__ = ["CursorWorkerConfig", "CursorWorkerTool"]

_INSTEAD: Final = (
    "a cursor loop is leased frame by frame from the control plane, which only NoETL's own Python worker does: "
    "write loop: {in: ...} on the step, read page by page in a task sequence whose rule jumps back, or run one of "
    "NoETL's own workers for this kind"
)


@dataclass(frozen=True, slots=True)
class CursorWorkerConfig:
    """Refused before it starts, with what to write instead: this worker does not run cursor loops.

    The fields are those that the Python control plane sends for `loop: {cursor: ...}`.
    """

    cursor: Any = None
    """Where the rows come from: `kind`, `auth` and `claim`, a statement that claims the next one."""
    iterator: Any = None
    """Name of a row in the tasks' templates."""
    tasks: Any = None
    """Tasks for each row."""
    frame_policy: Any = None
    """How many rows are leased at a time, and for how long."""
    stage_id: Any = None
    """The loop, in the control plane's frames."""
    loop_event_id: Any = None
    """The loop, in its events."""
    worker_count: Any = None
    """How many commands share the loop."""
    worker_slot_id: Any = None
    """Which of them this one is."""
    worker_slot_index: Any = None
    """The same, as a number."""

    def __post_init__(self) -> None:
        raise ValueError(_INSTEAD)


class CursorWorkerTool:
    """The frames' routes are in no recording of ours: to guess at them would lose rows or process them twice."""

    kind: ClassVar[str] = "cursor_worker"
    config_model: ClassVar[type] = CursorWorkerConfig
    raw_fields: ClassVar[frozenset[str]] = frozenset(
        {"cursor", "iterator", "tasks"}  # nothing of it is rendered only to be refused
    )

    async def run(self, config: CursorWorkerConfig, context: ToolContext) -> ToolResult:
        raise ConfigurationError(f"cursor_worker: {_INSTEAD}")
