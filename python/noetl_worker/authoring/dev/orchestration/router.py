"""The DSL core: the decision about what follows an ended command.

A pure decision over an Execution: no database, no clock, no network. How a command looks on the wire is the
dialect's `Form`; here are steps, arcs, `set`, loops and the end of the playbook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from noetl_worker.authoring.dev.orchestration.empty_names import Asked
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution, LoopRun, Position
from noetl_worker.authoring.dev.orchestration.playbook import END, Arc, Loop, Step
from noetl_worker.authoring.dev.orchestration.rendering import holds, render_fields
from noetl_worker.authoring.dev.orchestration.spot import RefusedPart, Spot
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.models.wire import Dialect, JsonValue

_MAX_PASSES: Final = 100
"""Most steps without a tool in a row; more is a cycle."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The cause of a follow-up command; None for the first of an execution."""

    event_type: str
    step: str
    batch_request_id: int | None
    fanout: Sequence[str] = ()
    """All targets, if inclusive arcs led to more than one."""
    target_index: int = 0


@dataclass(frozen=True, slots=True)
class StepCommand:
    """A command to issue, still without ids."""

    step: Step
    scope: Mapping[str, JsonValue]
    """Names that its templates can see."""
    position: Position | None = None
    trigger: Trigger | None = None


class Notice(NamedTuple):
    """An event of the plane itself (loop.done, step.skipped, ...)."""

    event_type: str
    node: str
    status: str


@dataclass(slots=True)
class Decision:
    commands: list[StepCommand] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    is_over: bool = False
    """Nothing is open and nothing follows: the execution has ended (`execution.is_failed` says how)."""
    leads_nowhere: bool = False
    """The execution should go on, but nothing will ever follow."""
    passes: int = 0


class Form(Protocol):
    """The differences between the two planes in how results are kept and seen."""

    dialect: Dialect
    goes_on_after_no_items: bool
    """True if something follows a loop over an empty list that another step has led to."""
    reports_end_of_loop: bool
    """True if the end of a loop is an event of its own, `loop.done`."""
    sets_after_each_item: bool
    """True if the `set` of a step with a loop is carried out once for each item, not after all items."""

    fails_without_list: bool
    """True if a loop over something other than a list fails the execution; else the execution stands still."""
    ends_between_steps: bool
    """True if the execution ends when no arc of a step is taken."""
    keeps_ctx_of_items: bool
    """True if values that a loop item wrote to `ctx` are visible after the item."""
    ctx_beats_set: bool
    """True if values that a step's tasks wrote to `ctx` win over the `set` of the step."""

    def begin_event(self, execution: Execution) -> None:
        """Forget what the plane does not keep between events; called before an outcome is handled."""

    def may_enter(self, execution: Execution, step: Step) -> bool:
        """Return True if an arc leading to this step may enter it now."""

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        """Return the variables for templates of this execution."""

    def in_flight(self, loop: Loop, size: int) -> int:
        """Return how many items of a loop of `size` are out at the same time."""

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        """Return the scope of one loop item."""

    def keep(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """Make a step's result visible to later templates."""

    def keep_item(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """Make the result of a finished item visible to the loop's next items."""

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        """Make a loop's results visible under the step's name, and return them."""

    def loop_item(self, outcome: CommandOutcome) -> JsonValue:
        """Return one item's entry in the loop's collected results."""

    def set_of_step(self, execution: Execution, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        """Carry out the `set` of a step."""

    def set_of_arc(self, execution: Execution, arc: Arc, scope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Return the names that a chosen arc's `set` adds to its target's scope; keep them for later steps if the plane
        does.
        """

    def is_passed_over(self, step: Step, scope: Mapping[str, JsonValue]) -> bool:
        """Return True if the step's own `when` keeps its tool from running."""

    def items(self, collection: JsonValue, rendered: JsonValue) -> list[JsonValue] | None:
        """Return the items of a loop's `in`, as written and as rendered; None if it is no list."""

    def notices_of_choice(
        self, execution: Execution, chosen: Sequence[Arc], passed_over: Sequence[Arc]
    ) -> list[Notice]:
        """Return the events that the plane writes about the arcs of a step."""


class Router:
    """Decides over one plane's executions; stateless itself."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def begin(self, execution: Execution, alone: StepAlone | None = None) -> Decision:
        """Return the first commands of an execution; `alone`: only this step's, and nothing follows.

        Raises:
            RefusedPart: the step alone is a loop, and what it is given has no items for it.
        """
        turn = _Turn(self._form, execution)
        if alone is not None and execution.playbook is not None:
            for name, value in alone.results(execution.playbook).items():
                self._form.keep(execution, name, CommandOutcome(name, True, value))
            execution.playbook = alone.playbook_alone(execution.playbook)
        playbook = execution.playbook
        first = playbook.first(self._form.dialect) if playbook is not None else None
        if alone is not None and playbook is not None:
            first = next(iter(playbook.steps.values()))
        if first is not None:
            turn.enter(first, turn.scope(None, "command_creation", first), None)
        if alone is not None and first is not None and first.loop is not None and not turn.decision.commands:
            what = "for what it was given" if alone.names else "give --run last or --with FILE"
            reason = f"--step {first.name}: loop.in gave nothing ({first.loop.collection}): {what}"
            raise RefusedPart(reason, Spot(first.name, ("loop", "in")))
        return turn.settled()

    def advance(self, execution: Execution, outcome: CommandOutcome) -> Decision:
        """Decide what follows the end of a command."""
        turn = _Turn(self._form, execution)
        self._form.begin_event(execution)
        position = None
        if outcome.command_ref is not None:
            execution.open_commands.pop(outcome.command_ref, None)
            position = execution.positions.pop(outcome.command_ref, None)
        if position is None or self._form.keeps_ctx_of_items:
            execution.variables.update(outcome.merged)
        execution.last_result = outcome.value
        if outcome.fails_execution:
            execution.is_failed = True
            execution.error = outcome.error
        step = execution.playbook.steps.get(outcome.step) if execution.playbook is not None else None
        if step is not None:
            execution.current_step = step.name
            execution.ends_with_a_sequence = step.is_sequence
            if position is not None:
                turn.advance_loop(step, position, outcome)
            else:
                self._form.keep(execution, step.name, outcome)
                turn.leave(step, outcome)
        return turn.settled()

    def fail(self, execution: Execution, command_ref: str, error: str | None) -> Decision:
        """Decide after a command failed for good (`command.failed` without a `call.error`); nothing follows it."""
        execution.is_failed = True
        execution.error = execution.error or error
        step = execution.open_commands.pop(command_ref, None)
        execution.current_step = step or execution.current_step
        execution.positions.pop(command_ref, None)
        return _Turn(self._form, execution).settled()


@dataclass(frozen=True, slots=True)
class _Turn:
    """A decision while it is being made."""

    form: Form
    execution: Execution
    decision: Decision = field(default_factory=Decision)

    @property
    def asked(self) -> Asked:
        return Asked(self.execution, self.form.dialect)

    def scope(
        self, outcome: CommandOutcome | None, event: str, step: Step, **payload: JsonValue
    ) -> dict[str, JsonValue]:
        """Return the names that templates see at this event."""
        output = outcome.output if outcome is not None else None
        return self.form.scope(
            self.execution, output=output, event={"name": event, "step": step.name, "payload": payload}
        )

    def settled(self) -> Decision:
        execution, decision = self.execution, self.decision
        is_idle = not decision.commands and not execution.open_commands
        stays = decision.leads_nowhere and not execution.is_failed
        decision.is_over = is_idle and not stays
        execution.stands_still = is_idle and stays
        return decision

    # ── steps ───────────────────────────────────────────────────────────────────────────────────

    def leave(self, step: Step, outcome: CommandOutcome) -> None:
        """Carry out the step's `set`, then its arcs, then each chosen arc's `set` and target
        (protocol/tasks.md#results).
        """
        execution, decision = self.execution, self.decision
        if step.name not in execution.completed_steps:
            execution.completed_steps.append(step.name)
        if step.loop is None or not self.form.sets_after_each_item:
            scope = self.scope(outcome, outcome.event_type, step, response=outcome.value)
            self.asked.note_set(step, "set", step.set, scope)
            self.form.set_of_step(execution, step.set, scope)
        if self.form.ctx_beats_set:
            execution.variables.update(outcome.merged)
        scope = self.scope(outcome, outcome.event_type, step, response=outcome.value)
        chosen, passed_over = self._choose(step, scope)
        decision.notices.extend(self.form.notices_of_choice(execution, chosen, passed_over))
        targets = [arc.step for arc in chosen]
        decision.leads_nowhere = bool(step.arcs) and not self.form.ends_between_steps
        for index, arc in enumerate(chosen):
            self.asked.note_set(step, "next.set", arc.set, scope)
            added = self.form.set_of_arc(execution, arc, scope)
            target = execution.playbook.steps.get(arc.step) if execution.playbook is not None else None
            if target is None:  # `end`, or a name that the real plane skips as well (recorded: missing-step)
                decision.leads_nowhere = False
                continue
            if not self.form.may_enter(execution, target):
                continue
            decision.leads_nowhere = False  # unless the step that is entered does
            trigger = Trigger(
                event_type="call.done" if outcome.event_type == "loop.done" else outcome.event_type,
                step=step.name,
                batch_request_id=outcome.batch_request_id,
                fanout=targets if len(targets) > 1 else (),
                target_index=index,
            )
            self.enter(target, {**self.scope(outcome, "command_creation", target), **added}, trigger)

    def _choose(self, step: Step, scope: Mapping[str, JsonValue]) -> tuple[list[Arc], list[Arc]]:
        chosen: list[Arc] = []
        passed_over: list[Arc] = []
        for index, arc in enumerate(step.arcs):
            is_taken = step.mode == "exclusive" and bool(chosen)
            if not is_taken:
                self.asked.note_arc(step, index, arc.when, scope)
            where = f"step '{step.name}', next.arcs[{index}].when"
            if not is_taken and holds(arc.when, scope, where, self.form.dialect):
                chosen.append(arc)
            else:
                passed_over.append(arc)
        return chosen, passed_over

    def enter(self, step: Step, scope: Mapping[str, JsonValue], trigger: Trigger | None) -> None:
        if step.name == END and step.tool is None:
            return
        self.execution.entered.add(step.name)
        if self.form.is_passed_over(step, scope):
            self.decision.notices.append(Notice("step.skipped", step.name, "SKIPPED"))
            self._pass_through(step, trigger)
        elif step.loop is not None and step.tool is not None:
            self._enter_loop(step, step.loop, scope, trigger)
        elif step.tool is not None:
            self.asked.note_command(step, scope)
            self.decision.commands.append(StepCommand(step, scope, None, trigger))
        elif trigger is None:  # recorded (tool-missing-status): RUNNING for ever
            self._stand_still(step, "the first step has no tool")
        else:
            self._pass_through(step, trigger)

    def _stand_still(self, step: Step, error: str, *path: str) -> None:
        self.decision.leads_nowhere = True
        self._refuse(step, f": {error}", *path)

    def _refuse(self, step: Step, error: str, *path: str) -> None:
        self.execution.error, self.execution.refused = f"step '{step.name}'{error}", Spot(step.name, path)

    def _pass_through(self, step: Step, trigger: Trigger | None) -> None:
        self.decision.passes += 1
        if self.decision.passes > _MAX_PASSES:
            self.execution.is_failed = True
            self._refuse(step, " leads back to itself without ever running a tool", "next")
            return
        request_id = trigger.batch_request_id if trigger is not None else None
        self.leave(step, CommandOutcome(step.name, True, None, batch_request_id=request_id))

    # ── loops ───────────────────────────────────────────────────────────────────────────────────

    def _enter_loop(self, step: Step, loop: Loop, scope: Mapping[str, JsonValue], trigger: Trigger | None) -> None:
        execution = self.execution
        self.asked.note_loop(step, loop.collection, scope)
        items = self.form.items(loop.collection, render_fields(loop.collection, scope, self.form.dialect))
        if items is None:
            execution.is_failed |= self.form.fails_without_list
            self.decision.leads_nowhere = not self.form.fails_without_list
            self._refuse(step, f": loop.in is not a list: {loop.collection}", "loop", "in")
            return
        limit = _limit(render_fields(loop.max_in_flight, scope, self.form.dialect))
        if limit is None and loop.max_in_flight is not None:
            execution.is_failed = True
            error = f": loop.spec.max_in_flight gives no number: {loop.max_in_flight}"
            self._refuse(step, error, "loop", "spec", "max_in_flight")
            return
        execution.loop_count += 1
        run = LoopRun(
            iterator=loop.iterator,
            epoch_id=f"loop_{execution.execution_id}_{execution.loop_count}",
            items=items,
            is_parallel=loop.is_parallel,
            limit=self.form.in_flight(replace(loop, max_in_flight=limit), len(items)),
            next_index=loop.only or 0,
            end=len(items) if loop.only is None else loop.only + 1,
        )
        if items:
            self._fill(run, step, scope, trigger)
        elif trigger is None:  # recorded (loop-empty-status-final), seen on the real Rust plane: RUNNING for ever
            self._stand_still(step, "the first step is a loop without items", "loop", "in")
        elif self.form.goes_on_after_no_items:
            self._close_loop(step, run, trigger.batch_request_id)

    def _fill(self, run: LoopRun, step: Step, scope: Mapping[str, JsonValue], trigger: Trigger | None) -> None:
        """Issue items up to the loop's limit."""
        while run.in_flight < run.limit and run.next_index < run.end and not run.is_stopped:
            position = Position(run.next_index, run.items[run.next_index], run)
            seen = self.form.with_item(scope, position)
            self.asked.note_command(step, seen)
            self.decision.commands.append(StepCommand(step, seen, position, trigger))
            run.next_index += 1
            run.in_flight += 1

    def advance_loop(self, step: Step, position: Position, outcome: CommandOutcome) -> None:
        run = position.run
        run.in_flight -= 1
        run.results[position.index] = self.form.loop_item(outcome)
        if outcome.fails_execution:
            run.failed += 1
        self.form.keep_item(self.execution, step.name, outcome)
        if self.form.sets_after_each_item:
            self.form.set_of_step(self.execution, step.set, self.scope(outcome, "loop_init", step))
        if run.is_over:
            self._close_loop(step, run, outcome.batch_request_id)
            return
        trigger = Trigger(outcome.event_type, step.name, outcome.batch_request_id)
        self._fill(run, step, self.scope(outcome, "loop_init", step), trigger)

    def _close_loop(self, step: Step, run: LoopRun, request_id: int | None) -> None:
        """Close a loop whose items are all back. Nothing follows a failed item (recorded: loop-item-fails)."""
        execution = self.execution
        value = self.form.keep_loop(execution, step.name, run)
        execution.last_result = value
        if run.failed:
            if step.name not in execution.completed_steps:
                execution.completed_steps.append(step.name)
            return
        if self.form.reports_end_of_loop:
            self.decision.notices.append(Notice("loop.done", step.name, "completed"))
        self.leave(step, CommandOutcome(step.name, True, value, event_type="loop.done", batch_request_id=request_id))


def names_set(block: Mapping[str, JsonValue]) -> Iterator[tuple[list[str], JsonValue]]:
    """Yield what a `set` writes to `ctx.<name>` or a bare name; other scopes end with the step and are not kept."""
    for key, value in block.items():
        scoped, _, name = str(key).partition(".")
        if not name:
            scoped, name = "ctx", scoped
        if scoped == "ctx":
            yield name.split("."), value


def write(target: dict[str, JsonValue], path: Sequence[str], value: JsonValue) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        if not isinstance(inner, dict):
            inner = target[name] = {}
        target = inner
    target[path[-1]] = value


def _limit(value: JsonValue) -> int | None:
    """Return a loop's `max_in_flight`, a number or its text."""
    try:
        found = int(value) if isinstance(value, (int, str)) else 0
    except ValueError:
        return None
    return found if found > 0 else None


def listed_items(collection: JsonValue) -> list[JsonValue] | None:
    """Return the items of a rendered `in`: a list, or an object as [{key, value}]."""
    if isinstance(collection, list):
        return collection
    if isinstance(collection, dict):
        return [{"key": key, "value": value} for key, value in collection.items()]
    return None
