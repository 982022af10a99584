"""An execution as the page shows it, for both planes. Times are seconds since 1970, or None if no event has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from noetl_worker.models.wire import JsonValue


class CommandState(str, Enum):
    """The state of a command, by its events."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class RunTask:
    """A task of a command that is a list."""

    name: str
    kind: str = ""
    input: JsonValue = None
    output: JsonValue = None
    tries: Sequence[Mapping[str, JsonValue]] = ()
    """Tries as the last event names them (pipeline/report/results.py)."""


@dataclass(slots=True)
class RunCommand:
    """A command. A field that no event has stays empty."""

    step: str
    command_id: str = ""
    event_id: int | None = None
    """Id of its command.issued."""
    state: CommandState = CommandState.WAITING
    item: int | None = None
    """Index of its item, in a loop."""
    value: JsonValue = None
    """Names of the item with their values."""
    kind: str = ""
    after: str | None = None
    """Step whose end led to this command."""
    issued: float | None = None
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    """Number of claims."""
    worker: str = ""
    input: JsonValue = None
    output: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    is_raised: bool = False
    """True if an event calls the command itself failed, and not only its tool."""
    passed: str = ""
    """Failure that a rule let pass."""
    answer: str = ""
    """Body of a failed answer."""
    names: Mapping[str, JsonValue] = field(default_factory=dict)
    """Names that the templates of its tasks see."""
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """Notes of the worker in the last event: `tasks`, `answer`, `case`."""
    tasks: Sequence[RunTask] = ()
    child: str = ""
    """Id of the execution that it started."""


@dataclass(frozen=True, slots=True)
class RunWay:
    """An arc between two steps."""

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
    ways: list[RunWay] = field(default_factory=list)


@dataclass(slots=True)
class ExecutionRun:
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
    """The evidence for the plane's COMPLETED, if no event says so."""
    notes: list[str] = field(default_factory=list)
    """Notes about missing values, and why they are missing."""
    children: list[ExecutionRun] = field(default_factory=list)
    """Executions that its commands started, theirs included."""
