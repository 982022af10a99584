"""A claimed command, read from the plane's answer to the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.wire import CommandId, Dialect, JsonValue, command_ids


@dataclass(frozen=True, slots=True)
class LoopPosition:
    """Position of a command in a loop. On the Python plane, the worker's events for the command repeat this position
    (protocol/command.md#loops)."""

    event_id: JsonValue = None
    iteration_index: JsonValue = None
    epoch_id: JsonValue = None


@dataclass(slots=True)  # not frozen: command.py makes it in two steps, and nothing else changes it
class Command:
    """A claimed command: one tool call to make. Its references to stored values are resolved."""

    execution_id: int
    event_id: int
    command_id: CommandId
    step: str
    kind: str
    """Kind of the tool. The plane calls it `action`."""
    config: Mapping[str, JsonValue]
    """The tool's own fields. The config of a task sequence is {"tasks": [...]}."""
    input: Mapping[str, JsonValue]
    variables: Mapping[str, JsonValue]
    """Variables for templates and conditions: the plane's `render_context`, plus `action` and `node_name`."""
    cases: Sequence[JsonValue]
    meta: Mapping[str, JsonValue]
    server_url: str
    dialect: Dialect
    attempt: int = 1
    loop: LoopPosition | None = None
    catalog_id: str | None = None
    marks: Marks = ALL
    """Flags that tell whether `config`, `input` and `variables` may contain templates, references or secrets."""
    size: int = 0
    """Size in bytes of the JSON behind this command: the claim's answer, plus the stored values to which the answer
    refers."""
    redacted: Sequence[str] = ()
    """Paths in `variables` where the plane put "[REDACTED]" in place of a value (text/templates/redacted.py)."""

    def log_ids(self) -> dict[str, object]:
        """Return the ids, step and kind of this command for a log line."""
        return {**command_ids(self), "kind": self.kind}
