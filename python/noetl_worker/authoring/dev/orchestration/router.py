"""The decision about what follows when a command has ended: arcs (`next`), `set`, loops, or the execution's end.

The router reads and changes only the Execution: no database, no clock, no network. For each plane, a `RoutingRules` has
the rules in which the planes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from noetl_worker.authoring.dev.orchestration.empty_names import EmptyNames
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution, LoopRun, Position
from noetl_worker.authoring.dev.orchestration.location import Location, RefusedPart
from noetl_worker.authoring.dev.orchestration.playbook import END, Arc, Loop, Step
from noetl_worker.authoring.dev.orchestration.rendering import holds, render_fields
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.models.wire import Dialect, JsonValue

_MAX_PASSES: Final = 100
"""Largest number of steps without a tool that may follow one another. A longer chain counts as an endless cycle: the
execution fails."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that led to a command."""

    event_type: str
    step: str
    batch_request_id: int | None
    fanout: Sequence[str] = ()
    """Names of the target steps of all chosen arcs; empty if only one arc was chosen."""
    target_index: int = 0


@dataclass(frozen=True, slots=True)
class StepCommand:
    """A command that is to be issued and has no ids yet."""

    step: Step
    scope: Mapping[str, JsonValue]
    """Names and values that the templates of the command see."""
    position: Position | None = None
    """The loop item that the command is for; None outside a loop."""
    trigger: Trigger | None = None
    """The event that led to the command; None for an execution's first command."""


class Notice(NamedTuple):
    """An event that the plane writes about a step, such as loop.done or step.skipped."""

    event_type: str
    node: str
    status: str


@dataclass(slots=True)
class Decision:
    """The actions that a plane has to take after an event."""

    commands: list[StepCommand] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    is_over: bool = False
    """True if no command is open and none follows, so that the execution ends."""
    leads_nowhere: bool = False
    """True if the real plane would neither enter a further step nor end the execution, so that it stays RUNNING."""
    passes: int = 0
    """Number of steps without a tool that this decision entered."""


class RoutingRules(Protocol):
    """The rules of one plane: how it stores results, what templates see, and which steps it enters."""

    dialect: Dialect
    goes_on_after_no_items: bool
    """True if the playbook goes on after a loop over an empty list."""
    reports_end_of_loop: bool
    """True if the plane writes an event `loop.done` at the end of a loop."""
    sets_after_each_item: bool
    """True if the `set` of a step with a loop is carried out after each item; False: once after the loop."""

    fails_without_list: bool
    """True if a loop over something other than a list fails the execution. False: the execution stays RUNNING, but no
    step follows."""
    ends_without_taken_arc: bool
    """True if the execution ends when a step has arcs but none is taken. False: the execution then stays RUNNING,
    but no step follows."""
    keeps_ctx_of_items: bool
    """True if later steps see the values that a loop item wrote to `ctx`."""
    ctx_beats_set: bool
    """True if values that a step's tasks wrote to `ctx` win over the `set` of the step."""

    def begin_event(self, execution: Execution) -> None:
        """Remove the variables and parts of step results that the plane forgets before it handles a command's outcome.

        Only the Python plane forgets such values.
        """

    def may_enter(self, execution: Execution, step: Step) -> bool:
        """Return True if the plane may enter the step now, after an arc to the step was chosen."""

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        """Return the names and values that templates see.

        Args:
            output: value of `output`; None at the start of an execution, when no command has ended.
            event: value of `event`.
        """

    def in_flight(self, loop: Loop, size: int) -> int:
        """Return how many items of a loop over `size` items may be open at the same time."""

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        """Return `scope` with the names and values of one loop item added."""

    def keep(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """Make a step's result visible to later templates."""

    def keep_item(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """Make the result of a loop item visible to the loop's next items."""

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        """Make a loop's results visible to templates under the step's name. Return the results."""

    def loop_item(self, outcome: CommandOutcome) -> JsonValue:
        """Return the value that a loop's result contains for one item."""

    def set_of_step(self, execution: Execution, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        """Write the values of a step's `set` to the execution's variables."""

    def set_of_arc(self, execution: Execution, arc: Arc, scope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Write the values of a chosen arc's `set`. Return the names and values that only the arc's target sees."""

    def is_passed_over(self, step: Step, scope: Mapping[str, JsonValue]) -> bool:
        """Return True if the step's own `when` prevents its tool from running."""

    def items(self, collection: JsonValue, rendered: JsonValue) -> list[JsonValue] | None:
        """Return the items of a loop; None if its `in` gives no list.

        Args:
            collection: the `in` as written.
            rendered: the value of the rendered `in`.
        """

    def notices_of_choice(
        self, execution: Execution, chosen: Sequence[Arc], passed_over: Sequence[Arc]
    ) -> list[Notice]:
        """Return the events that the plane writes about a step's chosen arcs and about the step's other arcs."""


class Router:
    """Decides which commands follow an event in an execution. All state is in `Execution`, none in the router."""

    def __init__(self, rules: RoutingRules) -> None:
        self._rules = rules

    def begin(self, execution: Execution, alone: StepAlone | None = None) -> Decision:
        """Return the decision at the start of an execution: its first commands.

        Args:
            alone: the only step to run; no other step follows. None: run the whole playbook.

        Raises:
            RefusedPart: the only step is a loop, and its inputs give the loop no items.
        """
        builder = _DecisionBuilder(self._rules, execution)
        first = execution.playbook.first(self._rules.dialect)
        if alone is not None:
            for name, value in alone.results(execution.playbook).items():
                self._rules.keep(execution, name, CommandOutcome(name, True, value))
            execution.playbook = alone.playbook_alone(execution.playbook)
            first = execution.playbook.steps[alone.step]
        if first is not None:
            builder.enter(first, builder.scope(None, "command_creation", first), None)
        if alone is not None and first is not None and first.loop is not None and not builder.decision.commands:
            what = "give other inputs" if alone.names else "give --run last or --with FILE"
            reason = f"--step {first.name}: loop.in gave no items ({first.loop.collection}): {what}"
            raise RefusedPart(reason, Location(first.name, ("loop", "in")))
        return builder.settled()

    def advance(self, execution: Execution, outcome: CommandOutcome) -> Decision:
        """Record a command's outcome. Return the decision: the commands that follow, or the execution's end."""
        builder = _DecisionBuilder(self._rules, execution)
        self._rules.begin_event(execution)
        position = None
        if outcome.command_ref is not None:
            execution.open_commands.pop(outcome.command_ref, None)
            position = execution.positions.pop(outcome.command_ref, None)
        if position is None or self._rules.keeps_ctx_of_items:
            execution.variables.update(outcome.merged)
        execution.last_result = outcome.value
        if outcome.fails_execution:
            execution.is_failed = True
            execution.error = outcome.error
        step = execution.playbook.steps.get(outcome.step)
        if step is not None:
            execution.current_step = step.name
            execution.ends_with_a_sequence = step.is_sequence
            if position is not None:
                builder.advance_loop(step, position, outcome)
            else:
                self._rules.keep(execution, step.name, outcome)
                builder.leave(step, outcome)
        return builder.settled()

    def fail(self, execution: Execution, command_ref: str, error: str | None) -> Decision:
        """Mark an execution as failed because of an event `command.failed`. Return a decision without commands."""
        execution.is_failed = True
        execution.error = execution.error or error
        step = execution.open_commands.pop(command_ref, None)
        execution.current_step = step or execution.current_step
        execution.positions.pop(command_ref, None)
        return _DecisionBuilder(self._rules, execution).settled()


@dataclass(frozen=True, slots=True)
class _DecisionBuilder:
    """A decision that the router is making. The methods add commands, and notices (events that the plane writes)."""

    rules: RoutingRules
    execution: Execution
    decision: Decision = field(default_factory=Decision)

    @property
    def asked(self) -> EmptyNames:
        return EmptyNames(self.execution, self.rules.dialect)

    def scope(
        self, outcome: CommandOutcome | None, event: str, step: Step, **payload: JsonValue
    ) -> dict[str, JsonValue]:
        """Return the names and values that templates see when the router handles the event `event`."""
        output = outcome.output if outcome is not None else None
        return self.rules.scope(
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
        """Leave a step: write the step's `set`, choose among the step's arcs, and follow each chosen arc.

        To follow an arc, write the arc's `set`, then enter the arc's target (protocol/tasks.md#results).
        """
        execution, decision = self.execution, self.decision
        if step.name not in execution.completed_steps:
            execution.completed_steps.append(step.name)
        if step.loop is None or not self.rules.sets_after_each_item:
            scope = self.scope(outcome, outcome.event_type, step, response=outcome.value)
            self.asked.note_set(step, "set", step.set, scope)
            self.rules.set_of_step(execution, step.set, scope)
        if self.rules.ctx_beats_set:
            execution.variables.update(outcome.merged)
        scope = self.scope(outcome, outcome.event_type, step, response=outcome.value)
        chosen, passed_over = self._choose(step, scope)
        decision.notices.extend(self.rules.notices_of_choice(execution, chosen, passed_over))
        targets = [arc.step for arc in chosen]
        decision.leads_nowhere = bool(step.arcs) and not self.rules.ends_without_taken_arc
        for index, arc in enumerate(chosen):
            self.asked.note_set(step, "next.set", arc.set, scope)
            added = self.rules.set_of_arc(execution, arc, scope)
            target = execution.playbook.steps.get(arc.step)
            if target is None:  # `end`, or an unknown name, which the real plane ignores (recorded: missing-step)
                decision.leads_nowhere = False
                continue
            if not self.rules.may_enter(execution, target):
                continue
            decision.leads_nowhere = False  # `enter` may set the flag again
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
            if not is_taken and holds(arc.when, scope, where, self.rules.dialect):
                chosen.append(arc)
            else:
                passed_over.append(arc)
        return chosen, passed_over

    def enter(self, step: Step, scope: Mapping[str, JsonValue], trigger: Trigger | None) -> None:
        if step.name == END and step.tool is None:
            return
        self.execution.entered.add(step.name)
        if self.rules.is_passed_over(step, scope):
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
        self.execution.error, self.execution.refused = f"step '{step.name}'{error}", Location(step.name, path)

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
        items = self.rules.items(loop.collection, render_fields(loop.collection, scope, self.rules.dialect))
        if items is None:
            execution.is_failed |= self.rules.fails_without_list
            self.decision.leads_nowhere = not self.rules.fails_without_list
            self._refuse(step, f": loop.in is not a list: {loop.collection}", "loop", "in")
            return
        limit = _limit(render_fields(loop.max_in_flight, scope, self.rules.dialect))
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
            limit=self.rules.in_flight(replace(loop, max_in_flight=limit), len(items)),
            next_index=loop.only or 0,
            end=len(items) if loop.only is None else loop.only + 1,
        )
        if items:
            self._fill(run, step, scope, trigger)
        elif trigger is None:  # recorded (loop-empty-status-final), seen on the real Rust plane: RUNNING for ever
            self._stand_still(step, "the first step is a loop without items", "loop", "in")
        elif self.rules.goes_on_after_no_items:
            self._close_loop(step, run, trigger.batch_request_id)

    def _fill(self, run: LoopRun, step: Step, scope: Mapping[str, JsonValue], trigger: Trigger | None) -> None:
        """Add commands for the next items, up to the loop's limit of open commands."""
        while run.in_flight < run.limit and run.next_index < run.end and not run.is_stopped:
            position = Position(run.next_index, run.items[run.next_index], run)
            seen = self.rules.with_item(scope, position)
            self.asked.note_command(step, seen)
            self.decision.commands.append(StepCommand(step, seen, position, trigger))
            run.next_index += 1
            run.in_flight += 1

    def advance_loop(self, step: Step, position: Position, outcome: CommandOutcome) -> None:
        run = position.run
        run.in_flight -= 1
        run.results[position.index] = self.rules.loop_item(outcome)
        if outcome.fails_execution:
            run.failed += 1
        self.rules.keep_item(self.execution, step.name, outcome)
        if self.rules.sets_after_each_item:
            self.rules.set_of_step(self.execution, step.set, self.scope(outcome, "loop_init", step))
        if run.is_over:
            self._close_loop(step, run, outcome.batch_request_id)
            return
        trigger = Trigger(outcome.event_type, step.name, outcome.batch_request_id)
        self._fill(run, step, self.scope(outcome, "loop_init", step), trigger)

    def _close_loop(self, step: Step, run: LoopRun, request_id: int | None) -> None:
        """End a loop whose items have all ended: store its results, and leave its step.

        If an item has failed, do not leave the step, so that no step follows (recorded: loop-item-fails).
        """
        execution = self.execution
        value = self.rules.keep_loop(execution, step.name, run)
        execution.last_result = value
        if run.failed:
            if step.name not in execution.completed_steps:
                execution.completed_steps.append(step.name)
            return
        if self.rules.reports_end_of_loop:
            self.decision.notices.append(Notice("loop.done", step.name, "completed"))
        self.leave(step, CommandOutcome(step.name, True, value, event_type="loop.done", batch_request_id=request_id))


def names_set(block: Mapping[str, JsonValue]) -> Iterator[tuple[list[str], JsonValue]]:
    """Yield the path and the value of each entry of a `set` that writes to `ctx`.

    Such an entry's key is `ctx.name` or only `name`. Entries for other scopes, such as `iter.name`, are left out: after
    the step, their values are gone.
    """
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
    """Return a rendered `max_in_flight` as a number; None for any value but a whole number of at least 1."""
    try:
        found = int(value) if isinstance(value, (int, str)) else 0
    except ValueError:
        return None
    return found if found > 0 else None


def listed_items(collection: JsonValue) -> list[JsonValue] | None:
    """Return the items of a rendered `in`: a list's items, or {key, value} for each key of an object; else None."""
    if isinstance(collection, list):
        return collection
    if isinstance(collection, dict):
        return [{"key": key, "value": value} for key, value in collection.items()]
    return None
