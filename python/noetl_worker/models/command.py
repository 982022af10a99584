"""A command that is ours, read from its claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import CommandId, Dialect, JsonValue, ids_of


@dataclass(frozen=True, slots=True)
class LoopPosition:
    """Which item of a loop a command is; the Python plane has it echoed into the events (protocol/command.md#loops)."""

    event_id: JsonValue = None
    iteration_index: JsonValue = None
    epoch_id: JsonValue = None


@dataclass(slots=True)  # not frozen: command.py makes it in two steps, and nothing else changes it
class Command:
    """A claimed command, references resolved: one tool call to make."""

    execution_id: int
    event_id: int
    command_id: CommandId
    step: str
    kind: str
    """Tool kind, as the plane's `action`."""
    config: Mapping[str, JsonValue]
    """The tool's own fields; a task sequence has {"tasks": [...]}."""
    input: Mapping[str, JsonValue]
    variables: Mapping[str, JsonValue]
    """`render_context` of the plane plus `action` and `node_name`."""
    cases: Sequence[JsonValue]
    meta: Mapping[str, JsonValue]
    server_url: str
    dialect: Dialect
    attempt: int = 1
    loop: LoopPosition | None = None
    catalog_id: str | None = None
    marks: Marks = ALL
    """What may be in its config, input and variables."""
    redacted: Sequence[str] = ()
    """Where in its variables the plane has put "[REDACTED]" in place of a value (text/templates/redacted.py)."""

    def who(self) -> dict[str, object]:
        return {**ids_of(self), "kind": self.kind}
