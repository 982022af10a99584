"""The data of the execution page, in one form for both planes. Times are seconds since 1970, or None if not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from noetl_worker.models.wire import JsonValue


class CommandState(str, Enum):
    """The state of a command, according to its events."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class RunTask:
    """A task, as the execution page shows it, of a command that runs a list of tasks."""

    name: str
    kind: str = ""
    input: JsonValue = None
    output: JsonValue = None
    tries: Sequence[Mapping[str, JsonValue]] = ()
    """Attempts of the task, as the command's last event lists them (pipeline/report/results.py)."""


@dataclass(slots=True)
class RunCommand:
    """A command of an execution. A field for which no event has a value keeps its default."""

    step: str
    command_id: str = ""
    event_id: int | None = None
    """Id of the command's `command.issued` event."""
    state: CommandState = CommandState.WAITING
    item: int | None = None
    """Index of the loop item that the command is for; None outside a loop."""
    value: JsonValue = None
    """The loop item as {iterator: value}; None outside a loop."""
    kind: str = ""
    after: str | None = None
    """Name of the step that ended before this command and led to it; None if the plane does not say."""
    issued: float | None = None
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    """Number of times that a worker claimed the command."""
    worker: str = ""
    input: JsonValue = None
    output: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    is_raised: bool = False
    """True if an event says that the command itself failed, and not only its tool."""
    passed: str = ""
    """Error text of a failure that a policy or case (`when`/`then`) tolerated, so the execution went on; "" if none."""
    answer: str = ""
    """Body of the HTTP response that made the command fail; "" if there was none."""
    names: Mapping[str, JsonValue] = field(default_factory=dict)
    """Variables of the command's templates, with their values."""
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """The worker's notes for the execution page, from the command's last event: `tasks`, `answer`, `case`."""
    tasks: Sequence[RunTask] = ()
    child: str = ""
    """Id of the child execution that the command started; "" if it started none."""


@dataclass(frozen=True, slots=True)
class RunArc:
    """An arc from a step to the step `to`, and whether the execution took it."""

    to: str
    when: str = ""
    is_taken: bool = False


@dataclass(slots=True)
class RunStep:
    name: str
    kind: str = ""
    text: str = ""
    """Description of the step in the playbook."""
    is_loop: bool = False
    ways: list[RunArc] = field(default_factory=list)


@dataclass(slots=True)
class ExecutionRun:
    """An execution, as the execution page shows it."""

    execution_id: str
    path: str
    status: str
    plane: str
    version: str = ""
    parent: str = ""
    error: str = ""
    started: float | None = None
    ended: float | None = None
    workload: JsonValue = None
    commands: Sequence[RunCommand] = ()
    steps: Mapping[str, RunStep] = field(default_factory=dict)
    inferred: str = ""
    """Remark that no event confirms the status COMPLETED; "" if an event does, or for any other status."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the reader about values that are missing on the page."""
    children: list[ExecutionRun] = field(default_factory=list)
    """All executions below this execution: child executions, their child executions, and so on."""
