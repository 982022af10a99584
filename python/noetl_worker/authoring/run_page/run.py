"""A run as the page shows it: the same for both planes. Times are seconds since 1970; None where no event says one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from noetl_worker.models.wire import JsonValue


class CommandState(str, Enum):
    """How far a command came, by its events."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class RunCommand:
    """One command. What stays empty is in no event."""

    step: str
    command_id: str = ""
    event_id: int | None = None
    """Of its command.issued."""
    state: CommandState = CommandState.WAITING
    item: int | None = None
    """Which item of a loop it is for."""
    kind: str = ""
    after: str | None = None
    """The step whose end issued it."""
    issued: float | None = None
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    """How often it was claimed."""
    worker: str = ""
    input: JsonValue = None
    output: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""


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
    """What the playbook says of it."""
    is_loop: bool = False
    ways: list[RunWay] = field(default_factory=list)


@dataclass(slots=True)
class ExecutionRun:
    """One execution."""

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
    """How sure the plane's COMPLETED is, where no event says so."""
    notes: list[str] = field(default_factory=list)
    """What is not known, and why."""
