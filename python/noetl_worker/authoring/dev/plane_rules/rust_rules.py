"""The Rust plane's way to store results and to write commands (protocol/command.md#rust-plane; recorded:
rust-control-plane).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from noetl_worker.authoring.dev.database import Ids
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution, LoopRun, Position
from noetl_worker.authoring.dev.orchestration.playbook import Arc, Loop, Step
from noetl_worker.authoring.dev.orchestration.rendering import holds, is_there, render_fields
from noetl_worker.authoring.dev.orchestration.router import Notice, StepCommand, listed_items, names_set, write
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand, basic_meta, rendered_tool
from noetl_worker.authoring.dev.plane_rules.rust_task_texts import LEFT_TO_WORKER, names_of_plane
from noetl_worker.authoring.dev.template_names import read_template
from noetl_worker.authoring.outline import texts_below
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.text.json_text import dumps
from noetl_worker.text.templates.template import has_template

_POOL = "shared"
_ROUTING_ONLY = ("output", "ctx")
"""Names that only the plane uses, to render templates itself. The plane does not send these names with a command."""


class RustPlaneRules:
    """The Rust plane's rules for results, templates and commands.

    Templates see the data of a step `x` as `x`, and the worker's report about the step as `steps.x`.
    """

    dialect = Dialect.RUST
    goes_on_after_no_items = True
    reports_end_of_loop = False  # recorded (loop-sequential)
    sets_after_each_item = False
    fails_without_list = True
    ends_without_taken_arc = False  # recorded (arcs-none-match, set-counter, large-single): RUNNING for ever
    keeps_ctx_of_items = False  # seen on the real plane (loop-sequence)
    ctx_beats_set = True  # seen on the real plane (set-order)

    def begin_event(self, execution: Execution) -> None:
        return None

    def may_enter(self, execution: Execution, step: Step) -> bool:
        """Return True if the plane may enter the step now, after an arc to the step was chosen.

        A step that was entered or skipped is never entered again (recorded: set-counter, large-single). Every entered
        step with an arc to this step must be completed first (recorded: arcs-join).
        """
        if step.name in execution.entered | execution.skipped:
            return False
        under_way = execution.entered.difference(execution.completed_steps)
        known = execution.playbook.steps
        return not any(arc.step == step.name for name in under_way for arc in known[name].arcs)

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        # Recorded: values of `set` are at the top level. They hide the workload's keys (set-shadows-workload) and the
        # steps (http-step-pages).
        scope: dict[str, JsonValue] = {
            **execution.workload,
            **execution.namespaces,
            **execution.variables,
            "workload": dict(execution.workload),
        }
        if execution.steps or event.get("name") == "loop_init":
            scope["steps"] = dict(execution.steps)
            scope["catalog_id"] = str(execution.catalog_id)
            scope["execution_id"] = str(execution.execution_id)
            scope["path"] = execution.path
        scope["ctx"] = dict(scope)  # recorded (names-single): all names of the first step too
        # Recorded (arcs-sequence, error-shell): `output` is what later steps see of the step, without status or error.
        if output is not None and (name := str(event.get("step"))) in execution.namespaces:
            scope["output"] = execution.namespaces[name]
        return scope

    def in_flight(self, loop: Loop, size: int) -> int:
        return max(1, size) if loop.is_parallel else 1  # recorded (loop-parallel): max_in_flight is ignored

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        names = _item_names(position)
        return {**scope, **names, "iter": names}

    def keep(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        execution.steps[step] = {"context": _hydrated(outcome), "status": "COMPLETED"}
        execution.namespaces[step] = _namespace(outcome, is_sequence=execution.playbook.steps[step].is_sequence)

    def keep_item(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        return None  # recorded (loop-sequential): an item does not see the results of earlier items

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        results = list(run.results.values())  # in the order of their ends (recorded: loop-parallel)
        execution.steps[step] = results
        execution.namespaces[step] = results
        return results

    def loop_item(self, outcome: CommandOutcome) -> JsonValue:
        status = "success" if outcome.is_ok else "error"
        return {"context": {"command_id": outcome.command_ref, "status": status}, "status": status}

    def set_of_step(self, execution: Execution, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        _set(execution.variables, block, scope)

    def set_of_arc(self, execution: Execution, arc: Arc, scope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Return the values of an arc's `set`, which only the arc's target sees.

        Templates in this `set` do not see `output` (recorded: set-arc).
        """
        added: dict[str, JsonValue] = {}
        _set(added, arc.set, {name: value for name, value in scope.items() if name != "output"})
        return {**added, "ctx": {**scope["ctx"], **added}} if added else {}

    def is_passed_over(self, step: Step, scope: Mapping[str, JsonValue]) -> bool:
        return not holds(step.when, scope, f"step '{step.name}', when", self.dialect)

    def items(self, collection: JsonValue, rendered: JsonValue) -> list[JsonValue] | None:
        return listed_items(rendered)

    def notices_of_choice(
        self, execution: Execution, chosen: Sequence[Arc], passed_over: Sequence[Arc]
    ) -> list[Notice]:
        """Return one event for the target of each arc: `step.enter` for a chosen arc, `step.skipped` for any other arc.

        Return no event if every chosen arc leads to a step that may not be entered now (recorded: set-counter). Omit
        `step.skipped` for a step that was entered before (recorded: http-step-pages).
        """
        steps = execution.playbook.steps
        entered = [arc for arc in chosen if arc.step not in steps or self.may_enter(execution, steps[arc.step])]
        if chosen and not entered:
            return []
        skipped = [arc for arc in passed_over if arc.step not in execution.entered]
        execution.skipped.update(arc.step for arc in skipped)
        return [
            *(Notice("step.skipped", arc.step, "SKIPPED") for arc in skipped),
            *(Notice("step.enter", arc.step, "ENTERED") for arc in entered),
        ]

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    def issue(self, execution: Execution, command: StepCommand, ids: Ids) -> IssuedCommand:
        step = command.step
        context: dict[str, JsonValue] = {
            "args": {},
            "render_context": {name: value for name, value in command.scope.items() if name not in _ROUTING_ONLY},
            "tool_config": _tool_config(command),
        }
        if step.cases:
            context["cases"] = list(step.cases)
        if command.position is None:
            return _issued(execution, step.name, step.kind, context, ids.next())
        index, run = command.position.index, command.position.run
        of_item = {
            "item_var": run.iterator,
            "iteration_index": index,
            "iteration_total": len(run.items),
            "iterator_step": step.name,
        }
        issued = _issued(execution, step.name, step.kind, context, ids.next(), suffix=f":i{index}")
        return replace(issued, meta={**issued.meta, **of_item})

    def raw(
        self, execution: Execution, node: str, action: str, context: Mapping[str, JsonValue], ids: Ids
    ) -> IssuedCommand:
        merged = {"args": {}, "render_context": {"workload": {}}, **context}
        given = merged.pop("input")
        if given and isinstance(merged["tool_config"], dict):
            merged["tool_config"] = {**merged["tool_config"], "args": given}
        return _issued(execution, node, action, merged, ids.next())

    def notification(self, issued: IssuedCommand, server_url: str, subject: str) -> tuple[str, bytes]:
        body = {
            "command_id": issued.command_id,
            "event_id": issued.event_id,
            "execution_id": issued.execution_id,
            "execution_pool": _POOL,
            "server_url": server_url,
            "step": issued.node,
        }
        return f"{subject}.{_POOL}.{issued.execution_id}", dumps(body)


def _issued(
    execution: Execution, node: str, kind: str, context: Mapping[str, JsonValue], event_id: int, suffix: str = ""
) -> IssuedCommand:
    command_id = f"{execution.execution_id}:{node}:{event_id}{suffix}"
    meta = dict(sorted(basic_meta(execution, node, kind, command_id).items()))
    return IssuedCommand(execution.execution_id, event_id, command_id, node, kind, context, meta)


def _set(target: dict[str, JsonValue], block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
    for path, value in names_set(block):
        write(target, path, render_fields(value, scope, Dialect.RUST))


def _namespace(outcome: CommandOutcome, *, is_sequence: bool) -> JsonValue:
    """Return a step's result as templates see it (protocol/tasks.md#results).

    The tool's data appears twice, at the top level and under `data`: `{"n": 1}` becomes `{"n": 1, "data": {"n": 1}}`.
    The status and the error are left out.
    """
    value = outcome.value
    if not isinstance(value, dict):
        return value
    merged = _task_fields(value) if is_sequence else dict(value)
    return {"data": dict(merged), **merged}


def _hydrated(outcome: CommandOutcome) -> JsonValue:
    """Return the worker's report about a command as templates see it under `steps` (recorded: large-list).

    If the report has a reference to stored data, add a preview of the data under `result.context.data`.
    """
    reported = outcome.reported
    if outcome.ref is None or not isinstance(reported, dict):
        return reported
    result = reported["result"]
    return {**reported, "result": {**result, "context": {**result["context"], "data": outcome.value}}}


def _task_fields(value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a task sequence's result with the fields of its tasks' results added (protocol/tasks.md#lists).

    `{"fetch": {"n": 1}}` becomes `{"fetch": {"n": 1}, "n": 1}`. If the result of any task is no object, nothing is
    added.
    """
    if not all(isinstance(inner, dict) for inner in value.values()):
        return dict(value)
    return {**value, **{name: field for inner in value.values() for name, field in inner.items()}}


def _item_names(position: Position) -> dict[str, JsonValue]:
    run = position.run
    return {"_index": position.index, "_total": len(run.items), run.iterator: position.item}


def _tool_config(command: StepCommand) -> JsonValue:
    """Return the `tool_config` of a command.

    A single tool is rendered, with its inputs as `args`. A task sequence is a list of {name: task}, not rendered.
    """
    step, scope = command.step, command.scope
    names = _item_names(command.position) if command.position is not None else {}
    if not isinstance(step.tool, Mapping):
        _refuse_in_tasks(step.tool or (), scope)
        return [{str(task.get("name", "")): dict(task)} for task in step.tool or ()]
    config = rendered_tool(step.tool, scope, Dialect.RUST, without=("kind", "input", "args"))
    # The step's own `input` is not sent (recorded: step-input, py-args).
    given = {**fields_of(step.tool.get("args")), **fields_of(step.tool.get("input"))}
    args = {**names, **render_fields(given, scope, Dialect.RUST)}
    if args:
        config["args"] = args
    return _in_order(config)


def _refuse_in_tasks(tasks: Sequence[Mapping[str, JsonValue]], scope: Mapping[str, JsonValue]) -> None:
    """Raise RefusedTemplate if the plane fails to render a template in a task.

    The plane renders a template as soon as all names in the template have values (seen on noetl-server 3.54.0). The
    plane never renders the fields in LEFT_TO_WORKER.
    """
    fields = [{name: value for name, value in task.items() if name not in LEFT_TO_WORKER} for task in tasks]
    for _, text in texts_below((), fields):
        names = names_of_plane(read_template((), text)) if has_template(text) else None
        if names is not None and all(is_there(name, scope, Dialect.RUST) for name in names):
            render_fields(text, scope, Dialect.RUST)


def _in_order(value: JsonValue) -> JsonValue:
    """Return a value with the keys of each object in alphabetical order.

    The plane sends the keys in this order (recorded: http-request).
    """
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value
