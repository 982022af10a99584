"""An execution of a playbook: its variables, open commands, and outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from noetl_worker.authoring.dev.orchestration.playbook import Playbook
from noetl_worker.authoring.dev.orchestration.spot import Spot
from noetl_worker.models.wire import JsonValue

Status = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]


class EmptyName(NamedTuple):
    """A name that a template asked for and nobody had."""

    step: str
    where: str
    """The field of the step."""
    name: str
    """The whole name, for example `start.total`."""
    why: str

    def __str__(self) -> str:
        return f"{self.step}, {self.where}: nothing gave '{self.name}': {self.why}"


@dataclass(slots=True)
class LoopRun:
    """A running loop: the items that are out, and those that came back."""

    iterator: str
    epoch_id: str
    items: list[JsonValue]
    is_parallel: bool
    limit: int
    """Most commands out at the same time."""
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
        """True if a failed item stops the loop: a sequential one; a parallel loop goes on (recorded: loop-*-fails)."""
        return self.failed > 0 and not self.is_parallel


@dataclass(frozen=True, slots=True)
class Position:
    """The loop item that a command is for."""

    index: int
    item: JsonValue
    run: LoopRun


@dataclass(slots=True)
class Execution:
    execution_id: int
    catalog_id: int
    path: str
    version: int
    playbook: Playbook | None
    """The playbook; None for raw commands, which nothing follows."""
    workload: Mapping[str, JsonValue]
    payload: Mapping[str, JsonValue]
    """Values given to `execute` on top of the workload; the input of the first command on the Python plane."""
    parent_execution_id: int | None
    started_at: float
    lifecycle_event_ids: tuple[int, int] = (0, 0)
    """Ids of playbook.initialized and workflow.initialized, the parents of the closing events."""
    status: Status = "RUNNING"
    stands_still: bool = False
    """Rust plane: nothing is open and nothing follows, yet the execution has not ended (recorded: arcs-none-match)."""
    ended_at: float | None = None
    error: str | None = None
    refused: Spot | None = None
    """The part of the playbook that the error is about, if it is the plane's own."""
    is_failed: bool = False
    """A command failed; the execution will end FAILED."""
    is_failed_by_command: bool = False
    """Rust plane: a command failed, so no closing event is written; a failure of the plane itself has one."""
    variables: dict[str, JsonValue] = field(default_factory=dict)
    """Python plane: workload, step results and `set` values together, as `ctx`. Rust plane: `set` values."""
    steps: dict[str, JsonValue] = field(default_factory=dict)
    """The result of each step (Python plane), or the worker's report (Rust plane)."""
    namespaces: dict[str, JsonValue] = field(default_factory=dict)
    """Rust plane: the names that templates see, by step."""
    entered: set[str] = field(default_factory=set)
    """Steps that an arc, or the start, has led to."""
    skipped: set[str] = field(default_factory=set)
    """Rust plane: steps that an arc passed over."""
    ends_with_a_sequence: bool = False
    """True if the last step that returned was a list of tasks."""
    completed_steps: list[str] = field(default_factory=list)
    current_step: str | None = None
    last_result: JsonValue = None
    open_commands: dict[str, str] = field(default_factory=dict)
    """Step of each command without a result, by command_ref."""
    positions: dict[str, Position] = field(default_factory=dict)
    """Place in its loop, by command_ref."""
    reported: dict[str, JsonValue] = field(default_factory=dict)
    """Rust plane: context of each `call.done` by command_ref, until `command.completed` comes."""
    keychain: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Entries of the playbook's keychain that were resolved, with the names of their fields."""
    empty: list[EmptyName] = field(default_factory=list)
    """Names that templates asked for and that had no value."""
    loop_count: int = 0
    """Number of loops begun; makes each loop's epoch id unique."""

    @property
    def kept_variables(self) -> dict[str, JsonValue]:
        """Variables that the Python plane keeps between events and shows.

        Objects with a `status` are left out, unless they were in the workload (recorded: tool-shell-status-final,
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
        """True if nothing more happens in the execution."""
        return self.is_over or self.stands_still


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The router's view of a worker's event about one command."""

    step: str
    """Step name without `:task_sequence`."""
    is_ok: bool
    value: JsonValue
    """The result that templates see as `output.data`."""
    reported: JsonValue = None
    """Rust plane: the event's context, kept under `steps`."""
    error: str | None = None
    fails_execution: bool = False
    """The execution will end FAILED; on the Rust plane a tool's own failure does not cause this."""
    event_type: str = "call.done"
    command_ref: str | None = None
    merged: Mapping[str, JsonValue] = field(default_factory=dict)
    """`ctx` of a task sequence, merged into the execution's variables."""
    batch_request_id: int | None = None
    ref: JsonValue = None

    @property
    def output(self) -> dict[str, JsonValue]:
        """`output` in `set` blocks and arc conditions (protocol/tasks.md#results)."""
        return {
            "status": "ok" if self.is_ok else "error",
            "data": self.value,
            "ref": self.ref,
            "error": self.error,
        }
