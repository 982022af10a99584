"""An execution of a playbook: its variables, open commands, and outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from noetl_worker.authoring.dev.orchestration.location import Location
from noetl_worker.authoring.dev.orchestration.playbook import Playbook
from noetl_worker.models.wire import JsonValue

Status = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]


class EmptyName(NamedTuple):
    """A variable, or a key of a variable, that a template uses and that had no value."""

    step: str
    where: str
    """Field of the step whose template uses the name, for example `tool.url`."""
    name: str
    """The name that had no value, for example `start.total`: the key `total` in the result of step `start`."""
    why: str

    def __str__(self) -> str:
        return f"{self.step}, {self.where}: nothing gave '{self.name}': {self.why}"


@dataclass(slots=True)
class LoopRun:
    """A running loop: its items, the index of the next item, and the results of ended items."""

    iterator: str
    epoch_id: str
    items: list[JsonValue]
    is_parallel: bool
    limit: int
    """Largest number of the loop's commands that may be open at the same time."""
    next_index: int
    end: int
    """Index after the last item to run."""
    in_flight: int = 0
    results: dict[int, JsonValue] = field(default_factory=dict)
    failed: int = 0

    @property
    def is_over(self) -> bool:
        return self.in_flight == 0 and (self.next_index >= self.end or self.is_stopped)

    @property
    def is_stopped(self) -> bool:
        """True if an item of a sequential loop has failed. A parallel loop goes on (recorded: loop-*-fails)."""
        return self.failed > 0 and not self.is_parallel


@dataclass(frozen=True, slots=True)
class Position:
    """The loop item that a command is for."""

    index: int
    item: JsonValue
    run: LoopRun


@dataclass(slots=True)
class Execution:
    """A run of a playbook on the development plane."""

    execution_id: int
    catalog_id: int
    path: str
    version: int
    playbook: Playbook
    """The playbook of the execution. A test can create commands without a playbook; then the playbook here has no
    steps, and no command follows."""
    workload: Mapping[str, JsonValue]
    payload: Mapping[str, JsonValue]
    """Values from the request that started the execution. These values win over the playbook's workload. On the Python
    plane, the first command also gets these values as inputs."""
    parent_execution_id: int | None
    started_at: float
    lifecycle_event_ids: tuple[int, int] = (0, 0)
    """Ids of the events playbook.initialized and workflow.initialized. On the Python plane, the
    events about the execution's end name these two events as their parents."""
    status: Status = "RUNNING"
    stands_still: bool = False
    """True if no command is open and no step will follow, although the plane says RUNNING (recorded:
    arcs-none-match)."""
    ended_at: float | None = None
    error: str | None = None
    refused: Location | None = None
    """Place of the step or field that the plane could not execute; None if there was no such place."""
    is_failed: bool = False
    """True if a command has failed or the plane could not go on. The execution will end FAILED."""
    is_failed_by_command: bool = False
    """Rust plane: True if a command has failed. The plane then writes no event about the execution's end."""
    variables: dict[str, JsonValue] = field(default_factory=dict)
    """The content of `ctx`. Python plane: workload, step results and values of `set`. Rust plane: values of `set`."""
    steps: dict[str, JsonValue] = field(default_factory=dict)
    """Python plane: the result of each step. Rust plane: the worker's report about each step."""
    namespaces: dict[str, JsonValue] = field(default_factory=dict)
    """Rust plane: each step's result as templates see it, by the step's name."""
    entered: set[str] = field(default_factory=set)
    """Names of the steps that were entered, at the start or through an arc."""
    skipped: set[str] = field(default_factory=set)
    """Rust plane: names of skipped steps. A step is skipped if the plane does not choose an arc to the step."""
    ends_with_a_sequence: bool = False
    """True if the last step that ended was a list of tasks. The Python plane writes no event about the
    execution's end if such an execution succeeds."""
    completed_steps: list[str] = field(default_factory=list)
    current_step: str | None = None
    last_result: JsonValue = None
    open_commands: dict[str, str] = field(default_factory=dict)
    """Name of the step of each open command, by command_ref."""
    positions: dict[str, Position] = field(default_factory=dict)
    """Loop item of each open command that belongs to a loop, by command_ref."""
    reported: dict[str, JsonValue] = field(default_factory=dict)
    """Rust plane: the context of a command's `call.done` event, by command_ref, until its `command.completed` comes."""
    keychain: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Field names of each stored entry of the playbook's keychain, by the entry's name."""
    empty: list[EmptyName] = field(default_factory=list)
    """Names in templates that had no value."""
    loop_count: int = 0
    """Number of loops that were started. Each loop's id, `loop_EXECUTION_NUMBER`, contains this number."""

    @property
    def kept_variables(self) -> dict[str, JsonValue]:
        """The variables that the Python plane still has at the next event.

        The plane drops objects with a key `status`, except objects of the workload (recorded: tool-shell-status-final,
        set-step-output).
        """

        def is_kept(name: str, value: JsonValue) -> bool:
            return not isinstance(value, dict) or "status" not in value or self.workload.get(name) is value

        return {name: value for name, value in self.variables.items() if is_kept(name, value)}

    @property
    def is_over(self) -> bool:
        return self.status != "RUNNING"

    @property
    def is_at_rest(self) -> bool:
        """True if the execution has ended, or no step will ever follow."""
        return self.is_over or self.stands_still


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """A worker's report about the end of a command."""

    step: str
    """Name of the step, without the suffix `:task_sequence`."""
    is_ok: bool
    value: JsonValue
    """The result that templates see as `output.data`."""
    reported: JsonValue = None
    """Rust plane: the context of the worker's event about the command. Templates see this context under `steps`."""
    error: str | None = None
    fails_execution: bool = False
    """True if this outcome makes the execution end FAILED. Always False on the Rust plane: there the playbook goes on
    after a `call.done` with a tool's failure."""
    event_type: str = "call.done"
    command_ref: str | None = None
    merged: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values that a list of tasks wrote to `ctx`. `Router` copies these values to the execution's variables."""
    batch_request_id: int | None = None
    ref: JsonValue = None

    @property
    def output(self) -> dict[str, JsonValue]:
        """The value of `output` in `set` and in the conditions of arcs (protocol/tasks.md#results)."""
        return {
            "status": "ok" if self.is_ok else "error",
            "data": self.value,
            "ref": self.ref,
            "error": self.error,
        }
