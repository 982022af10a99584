"""The DSL core: what follows when a command has ended.

A pure decision over an Execution: no database, no clock, no network. How a command looks on the wire is the
dialect's `Form`; here are steps, arcs, `set`, loops and the end of the playbook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from noetl_worker.dev.orchestration.execution import CommandOutcome, Execution, LoopRun, Position
from noetl_worker.dev.orchestration.playbook import END, Arc, Loop, Step
from noetl_worker.dev.orchestration.rendering import holds, render_fields
from noetl_worker.dev.orchestration.step_alone import StepAlone
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue

_MAX_PASSES: Final = 100
"""Steps without a tool that may follow each other; more is a cycle."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a follow-up command is issued; None for the first of an execution."""

    event_type: str
    step: str
    batch_request_id: int | None
    fanout: Sequence[str] = ()
    """All targets, when inclusive arcs led to more than one."""
    target_index: int = 0


@dataclass(frozen=True, slots=True)
class StepCommand:
    """One command to issue, still without ids."""

    step: Step
    scope: Mapping[str, JsonValue]
    """What its templates are rendered against."""
    position: Position | None = None
    trigger: Trigger | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An event of the plane itself (loop.done, step.skipped, ...)."""

    event_type: str
    node: str
    status: str
    result: JsonValue = None


@dataclass(slots=True)
class Decision:
    commands: list[StepCommand] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    is_over: bool = False
    """Nothing is open and nothing follows: the execution has ended (`execution.is_failed` says how)."""
    leads_nowhere: bool = False
    """What comes next is not the end, and never comes."""
    passes: int = 0


class Form(Protocol):
    """What differs between the two planes in how results are kept and seen."""

    dialect: Dialect
    goes_on_after_no_items: bool
    """Whether anything follows a loop over an empty list that another step has led to."""
    reports_end_of_loop: bool
    """Whether the end of a loop is an event of its own, `loop.done`."""
    sets_after_each_item: bool
    """Whether the `set` of a step with a loop is carried out once for each item, not after all."""

    fails_without_list: bool
    """Whether an execution fails at a loop over what is no list; else it stands still."""
    ends_between_steps: bool
    """Whether an execution has ended where the arcs of a step lead nowhere."""
    keeps_ctx_of_items: bool
    """Whether what an item of a loop wrote to `ctx` is seen after it."""
    ctx_beats_set: bool
    """Whether what a step's tasks wrote to `ctx` wins over the `set` of the step."""

    def begin_event(self, execution: Execution) -> None:
        """Called before an outcome is looked at: forget what the plane does not keep from one event to the next."""

    def may_enter(self, execution: Execution, step: Step) -> bool:
        """Whether an arc that leads to this step brings it in now."""

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        """Variables for templates of this execution."""

    def in_flight(self, loop: Loop, size: int) -> int:
        """How many items of a loop of `size` are out at the same time."""

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        """The scope of one loop item."""

    def keep(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """Make a step's result visible to later templates."""

    def keep_item(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        """What the next items of a loop see of one that is back."""

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        """Make a loop's results visible under the step's name; returns them."""

    def loop_item(self, outcome: CommandOutcome) -> JsonValue:
        """What is collected of one item."""

    def set_of_step(self, execution: Execution, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        """Carry out the `set` of a step."""

    def set_of_arc(self, execution: Execution, arc: Arc, scope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """What the `set` of a chosen arc adds to the scope of its target; kept for later ones where the plane does."""

    def is_passed_over(self, step: Step, scope: Mapping[str, JsonValue]) -> bool:
        """Whether the step's own `when` keeps its tool from running."""

    def items(self, collection: JsonValue, rendered: JsonValue) -> list[JsonValue] | None:
        """The items of a loop's `in`, as written and as rendered; None when there is no list."""

    def notices_of_choice(
        self, execution: Execution, chosen: Sequence[Arc], passed_over: Sequence[Arc]
    ) -> list[Notice]:
        """Events the plane writes about the arcs of a step."""


class Router:
    """Decides over one plane's executions; stateless itself."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def begin(self, execution: Execution, alone: StepAlone | None = None) -> Decision:
        """The first commands of an execution; `alone`: of this step, and nothing follows.

        Raises:
            PlaybookError: the step alone is a loop, and what it is given has no items for it.
        """
        decision = Decision()
        if alone is not None and execution.playbook is not None:
            for name, value in alone.results(execution.playbook).items():
                self._form.keep(execution, name, CommandOutcome(name, True, value))
            execution.playbook = alone.of(execution.playbook)
        first = execution.playbook.first if execution.playbook is not None else None
        if first is not None:
            event = {"name": "command_creation", "step": first.name, "payload": {}}
            self._enter(execution, first, self._form.scope(execution, output=None, event=event), None, decision)
        if alone is not None and first is not None and first.loop is not None and not decision.commands:
            what = "for what it was given" if alone.names else "give --run last or --with FILE"
            raise PlaybookError(f"--step {first.name}: loop.in gave nothing ({first.loop.collection}): {what}")
        self._settle(execution, decision)
        return decision

    def advance(self, execution: Execution, outcome: CommandOutcome) -> Decision:
        """What follows the end of a command."""
        decision = Decision()
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
                self._advance_loop(execution, step, position, outcome, decision)
            else:
                self._form.keep(execution, step.name, outcome)
                self._leave(execution, step, outcome, decision)
        self._settle(execution, decision)
        return decision

    def fail(self, execution: Execution, command_ref: str, error: str | None) -> Decision:
        """A command failed for good and nothing follows it (`command.failed` without a `call.error`)."""
        decision = Decision()
        execution.is_failed = True
        execution.error = execution.error or error
        step = execution.open_commands.pop(command_ref, None)
        execution.current_step = step or execution.current_step
        if execution.positions.pop(command_ref, None) is not None and step is not None:
            execution.loops.pop(step, None)
        self._settle(execution, decision)
        return decision

    # ── steps ───────────────────────────────────────────────────────────────────────────────────

    def _leave(self, execution: Execution, step: Step, outcome: CommandOutcome, decision: Decision) -> None:
        """Step `set`, then the arcs, then each chosen arc's `set` and target (order: protocol/tasks.md#results)."""
        if step.name not in execution.completed_steps:
            execution.completed_steps.append(step.name)
        event = {"name": outcome.event_type, "step": step.name, "payload": {"response": outcome.value}}
        if step.loop is None or not self._form.sets_after_each_item:
            self._form.set_of_step(execution, step.set, self._form.scope(execution, output=outcome.output, event=event))
        if self._form.ctx_beats_set:
            execution.variables.update(outcome.merged)
        scope = self._form.scope(execution, output=outcome.output, event=event)
        chosen, passed_over = self._choose(step, scope)
        decision.notices.extend(self._form.notices_of_choice(execution, chosen, passed_over))
        targets = [arc.step for arc in chosen]
        decision.leads_nowhere = bool(step.arcs) and not self._form.ends_between_steps
        for index, arc in enumerate(chosen):
            added = self._form.set_of_arc(execution, arc, scope)
            target = execution.playbook.steps.get(arc.step) if execution.playbook is not None else None
            if target is None:  # `end`, or a name that the real plane skips as well (recorded: missing-step)
                decision.leads_nowhere = False
                continue
            if not self._form.may_enter(execution, target):
                continue
            decision.leads_nowhere = False  # unless the step that is entered does
            trigger = Trigger(
                event_type="call.done" if outcome.event_type == "loop.done" else outcome.event_type,
                step=step.name,
                batch_request_id=outcome.batch_request_id,
                fanout=targets if len(targets) > 1 else (),
                target_index=index,
            )
            created = {"name": "command_creation", "step": target.name, "payload": {}}
            seen = {**self._form.scope(execution, output=outcome.output, event=created), **added}
            self._enter(execution, target, seen, trigger, decision)

    def _choose(self, step: Step, scope: Mapping[str, JsonValue]) -> tuple[list[Arc], list[Arc]]:
        chosen: list[Arc] = []
        passed_over: list[Arc] = []
        for index, arc in enumerate(step.arcs):
            is_taken = step.mode == "exclusive" and bool(chosen)
            where = f"step '{step.name}', next.arcs[{index}].when"
            if not is_taken and holds(arc.when, scope, where, self._form.dialect):
                chosen.append(arc)
            else:
                passed_over.append(arc)
        return chosen, passed_over

    def _enter(
        self,
        execution: Execution,
        step: Step,
        scope: Mapping[str, JsonValue],
        trigger: Trigger | None,
        decision: Decision,
    ) -> None:
        if step.name == END and step.tool is None:
            return
        execution.entered.add(step.name)
        if self._form.is_passed_over(step, scope):
            decision.notices.append(Notice("step.skipped", step.name, "SKIPPED", {"status": "SKIPPED"}))
            self._pass_through(execution, step, trigger, decision)
        elif step.loop is not None and step.tool is not None:
            self._enter_loop(execution, step, scope, trigger, decision)
        elif step.tool is not None:
            decision.commands.append(StepCommand(step, scope, None, trigger))
        elif trigger is None:  # recorded (tool-missing-status): RUNNING for ever
            decision.leads_nowhere = True
            execution.error = f"step '{step.name}': the first step has no tool"
        else:
            self._pass_through(execution, step, trigger, decision)

    def _pass_through(self, execution: Execution, step: Step, trigger: Trigger | None, decision: Decision) -> None:
        decision.passes += 1
        if decision.passes > _MAX_PASSES:
            execution.is_failed = True
            execution.error = f"step '{step.name}' leads back to itself without ever running a tool"
            return
        request_id = trigger.batch_request_id if trigger is not None else None
        self._leave(execution, step, CommandOutcome(step.name, True, None, batch_request_id=request_id), decision)

    # ── loops ───────────────────────────────────────────────────────────────────────────────────

    def _enter_loop(
        self,
        execution: Execution,
        step: Step,
        scope: Mapping[str, JsonValue],
        trigger: Trigger | None,
        decision: Decision,
    ) -> None:
        assert step.loop is not None
        rendered = render_fields(step.loop.collection, scope, self._form.dialect)
        items = self._form.items(step.loop.collection, rendered)
        if items is None:
            execution.is_failed |= self._form.fails_without_list
            decision.leads_nowhere = not self._form.fails_without_list
            execution.error = f"step '{step.name}': loop.in is not a list: {step.loop.collection}"
            return
        execution.loop_count += 1
        run = LoopRun(
            iterator=step.loop.iterator,
            epoch_id=f"loop_{execution.execution_id}_{execution.loop_count}",
            items=items,
            is_parallel=step.loop.is_parallel,
            limit=self._form.in_flight(step.loop, len(items)),
            next_index=step.loop.only or 0,
            end=len(items) if step.loop.only is None else step.loop.only + 1,
        )
        execution.loops[step.name] = run
        request_id = trigger.batch_request_id if trigger is not None else None
        if items:
            self._fill(run, step, scope, trigger, decision)
        elif trigger is None:  # recorded (loop-empty-status-final), seen on the real Rust plane: RUNNING for ever
            execution.loops.pop(step.name)
            decision.leads_nowhere = True
            execution.error = f"step '{step.name}': the first step is a loop without items"
        elif self._form.goes_on_after_no_items:
            self._close_loop(execution, step, run, request_id, decision)
        else:
            execution.loops.pop(step.name)

    def _fill(
        self,
        run: LoopRun,
        step: Step,
        scope: Mapping[str, JsonValue],
        trigger: Trigger | None,
        decision: Decision,
    ) -> None:
        """Issue items up to the loop's limit."""
        while run.in_flight < run.limit and run.next_index < run.end and not run.is_stopped:
            position = Position(run.next_index, run.items[run.next_index], run)
            decision.commands.append(StepCommand(step, self._form.with_item(scope, position), position, trigger))
            run.next_index += 1
            run.in_flight += 1

    def _advance_loop(
        self, execution: Execution, step: Step, position: Position, outcome: CommandOutcome, decision: Decision
    ) -> None:
        run = position.run
        run.in_flight -= 1
        run.results[position.index] = self._form.loop_item(outcome)
        if outcome.fails_execution:
            run.failed += 1
        self._form.keep_item(execution, step.name, outcome)
        event = {"name": "loop_init", "step": step.name, "payload": {}}
        if self._form.sets_after_each_item:
            self._form.set_of_step(execution, step.set, self._form.scope(execution, output=outcome.output, event=event))
        if run.is_over:
            self._close_loop(execution, step, run, outcome.batch_request_id, decision)
            return
        scope = self._form.scope(execution, output=outcome.output, event=event)
        trigger = Trigger(outcome.event_type, step.name, outcome.batch_request_id)
        self._fill(run, step, scope, trigger, decision)

    def _close_loop(
        self, execution: Execution, step: Step, run: LoopRun, request_id: int | None, decision: Decision
    ) -> None:
        """All items are back. After a failed item nothing follows (recorded: loop-item-fails)."""
        execution.loops.pop(step.name, None)
        value = self._form.keep_loop(execution, step.name, run)
        execution.last_result = value
        if run.failed:
            if step.name not in execution.completed_steps:
                execution.completed_steps.append(step.name)
            return
        if self._form.reports_end_of_loop:
            decision.notices.append(Notice("loop.done", step.name, "completed", {"status": "COMPLETED"}))
        outcome = CommandOutcome(step.name, True, value, event_type="loop.done", batch_request_id=request_id)
        self._leave(execution, step, outcome, decision)

    def _settle(self, execution: Execution, decision: Decision) -> None:
        is_idle = not decision.commands and not execution.open_commands and not execution.loops
        stays = decision.leads_nowhere and not execution.is_failed
        decision.is_over = is_idle and not stays
        execution.stands_still = is_idle and stays


def names_set(block: Mapping[str, JsonValue]) -> Iterator[tuple[list[str], JsonValue]]:
    """What a `set` writes to `ctx.<name>` (or a bare name); other scopes end with the step and are not kept."""
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


def items_of(collection: JsonValue) -> list[JsonValue] | None:
    """The items of a rendered `in`: a list, or an object as [{key, value}]."""
    if isinstance(collection, list):
        return collection
    if isinstance(collection, dict):
        return [{"key": key, "value": value} for key, value in collection.items()]
    return None
