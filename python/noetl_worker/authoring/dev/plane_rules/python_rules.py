"""The Python plane's way to store results and to write commands (protocol/command.md#python-plane; recorded: *-claim,
*-nats).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from noetl_worker.authoring.dev.database import Ids, moment
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution, LoopRun, Position
from noetl_worker.authoring.dev.orchestration.playbook import Arc, Loop, Step
from noetl_worker.authoring.dev.orchestration.python_templates import ONE_NAME, ListResult
from noetl_worker.authoring.dev.orchestration.rendering import python_set, render_fields
from noetl_worker.authoring.dev.orchestration.router import Notice, StepCommand, listed_items, names_set, write
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand, basic_meta, rendered_tool
from noetl_worker.errors import TemplateError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.text.json_text import dumps

_NO_OUTPUT = {"status": "ok", "data": None, "ref": None, "error": None}


class PythonPlaneRules:
    """The Python plane's rules for results, templates and commands.

    In templates, `ctx.x` and `workload.x` are the variable `x`. `x` alone is the result of a step `x`, or else the
    variable `x`.
    """

    dialect = Dialect.PYTHON
    goes_on_after_no_items = False  # recorded (loop-empty)
    reports_end_of_loop = True
    sets_after_each_item = True  # recorded (loop-set-step)
    fails_without_list = False  # recorded (loop-over-seq-rows): RUNNING for ever
    ends_without_taken_arc = True  # recorded (arcs-none-match): inferred as complete
    keeps_ctx_of_items = True
    ctx_beats_set = False

    def begin_event(self, execution: Execution) -> None:
        """Remove the values that the plane forgets before each outcome (recorded: view-*, large-*, set-step-output).

        Results of earlier steps lose their lists and objects, except `context` and `reference`. `ctx` loses each object
        with a key `status`, except an object of the workload.
        """
        execution.variables = execution.kept_variables
        for name, value in execution.steps.items():
            if isinstance(value, dict):
                plain = {key: inner for key, inner in value.items() if not isinstance(inner, (dict, list))}
                kept = {"reference": value["reference"]} if "reference" in value else {}
                execution.steps[name] = {**plain, **kept, "context": value.get("context", value)}

    def may_enter(self, execution: Execution, step: Step) -> bool:
        """Return True if no command of the step is open, so that the plane may enter the step (recorded: arcs-join)."""
        return step.name not in execution.open_commands.values()

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        name = str(execution.execution_id)
        keychain = execution.playbook.keychain
        manifest = {"_keychain_manifest": _manifest(keychain)} if keychain else {}
        seen = {**execution.variables, **manifest}
        return {
            **execution.variables,
            **execution.steps,  # recorded (http-step-pages): a step hides a variable of its name, except under `ctx`
            "ctx": seen,
            "workload": dict(seen),
            "iter": {},
            "job": {"id": name, "uuid": name, "execution_id": name},
            "event": {**event, "timestamp": moment(time.time(), utc="")},
            "output": _with_context(output) if output is not None else dict(_NO_OUTPUT),
            "execution_id": name,
            "catalog_id": str(execution.catalog_id),
            **manifest,
        }

    def in_flight(self, loop: Loop, size: int) -> int:
        limit = loop.max_in_flight if isinstance(loop.max_in_flight, int) else max(1, size)
        return limit if loop.is_parallel else 1

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        run, index = position.run, position.index
        names = {run.iterator: position.item, "loop_index": index}
        return {
            **scope,
            **names,
            "ctx": {**scope["ctx"], **names},
            "workload": {**scope["workload"], **names},
            "event": {**scope["event"], "name": "loop_init"},
            "iter": {
                run.iterator: position.item,
                "_index": index,
                "_first": index == 0,
                "_last": index == len(run.items) - 1,
                "loop_event_id": run.epoch_id,
            },
            "loop": {"index": index, "first": index == 0, "length": 0, "done": False},  # recorded: always 0
        }

    def keep(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        if not outcome.is_ok:
            return  # recorded (arcs-on-error): a failed step has no result
        value = outcome.value
        if isinstance(value, dict) and "results" in value:
            # A sequence shows its last task's fields beside its own (recorded).
            value = {**fields_of(value.get("_prev")), **value}
        execution.steps[step] = execution.variables[step] = with_context(value)

    def keep_item(self, execution: Execution, step: str, outcome: CommandOutcome) -> None:
        self.keep(execution, step, outcome)

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        results = list(run.results.values())
        stats = {"total": len(run.items), "failed": run.failed, "success": len(results) - run.failed}
        # Recorded (loop-parallel): the plane shows only the result that came last.
        value = {"results": results[-1:], "stats": stats}
        if not execution.playbook.steps[step].is_sequence:  # recorded (loop-parallel; loop-sequence)
            execution.steps.clear()
        execution.steps[step] = execution.variables[step] = with_context(value)
        if run.items:  # recorded (loop-sequential-claim-4): the last item's names are still visible after the loop
            execution.variables[run.iterator] = run.items[-1]
            execution.variables["loop_index"] = len(run.items) - 1
        return value

    def loop_item(self, outcome: CommandOutcome) -> JsonValue:
        value = outcome.value
        return value["results"] if isinstance(value, dict) and "_prev" in value and "results" in value else value

    def items(self, collection: JsonValue, rendered: JsonValue) -> list[JsonValue] | None:
        """Return the items of a loop (recorded: loop-number).

        If the loop's `in` is one dotted name, such as `{{ start.rows }}`, the name's value has the items. Any other
        text in `in` gives one item: the rendered text.
        """
        if isinstance(collection, str) and not ONE_NAME.fullmatch(collection):
            return [str(rendered)]
        return listed_items(rendered)

    def set_of_step(self, execution: Execution, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        """Write the values of a step's `set` to the execution's variables (recorded: loop-set-step, set-step-output).

        Skip a value whose template cannot be rendered.
        """
        for path, value in names_set(block):
            with suppress(TemplateError):
                write(execution.variables, path, python_set(value, scope))

    def set_of_arc(self, execution: Execution, arc: Arc, scope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Write the values of an arc's `set` to the execution's variables, which all later steps see. Return {},
        because no value is for the arc's target alone.

        If a template cannot be rendered, write the template's text as the value (recorded: set-order).
        """
        for path, value in names_set(arc.set):
            try:
                write(execution.variables, path, python_set(value, scope))
            except TemplateError:
                write(execution.variables, path, value)
        return {}

    def is_passed_over(self, step: Step, scope: Mapping[str, JsonValue]) -> bool:
        return False  # recorded (step-when): the plane ignores a step's `when`

    def notices_of_choice(
        self, execution: Execution, chosen: Sequence[Arc], passed_over: Sequence[Arc]
    ) -> list[Notice]:
        return []

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    def issue(self, execution: Execution, command: StepCommand, ids: Ids) -> IssuedCommand:
        step, scope = command.step, {**command.scope, "output": _output(command)}
        node = f"{step.name}:task_sequence" if step.is_sequence else step.name
        given = render_fields(dict(step.input), scope, Dialect.PYTHON)
        if command.trigger is None:
            given = {**given, **execution.payload}
        if command.position is not None:
            given = {**given, **_loop_input(command.position)}
        context: dict[str, JsonValue] = {
            "spec": {"next_mode": step.mode},
            "input": given,
            "tool_config": _tool_config(step, scope),
            "render_context": scope,
        }
        if step.cases:
            context["cases"] = list(step.cases)
        command_id, event_id = ids.next(), ids.next()
        meta = _meta(execution, command, node, command_id)
        return IssuedCommand(execution.execution_id, event_id, command_id, node, step.kind, context, meta)

    def raw(
        self, execution: Execution, node: str, action: str, context: Mapping[str, JsonValue], ids: Ids
    ) -> IssuedCommand:
        merged = {
            "spec": {"next_mode": "exclusive"},
            "render_context": {
                "execution_id": str(execution.execution_id),
                "catalog_id": str(execution.catalog_id),
            },
            **context,
        }
        command_id, event_id = ids.next(), ids.next()
        meta = basic_meta(execution, node, action, command_id)
        return IssuedCommand(execution.execution_id, event_id, command_id, node, action, merged, meta)

    def notification(self, issued: IssuedCommand, server_url: str, subject: str) -> tuple[str, bytes]:
        body = {
            "execution_id": issued.execution_id,
            "event_id": issued.event_id,
            "command_id": issued.command_id,
            "step": issued.node,
            "server_url": server_url,
        }
        return subject, dumps(body)


def _output(command: StepCommand) -> Mapping[str, JsonValue]:
    """Return the `output` that the templates of a command see.

    A command sees its step's last output if an arc leads from the step to itself, or if the command is for the next
    item of a loop (recorded: set-counter, loop-*). Any other command sees an empty output (recorded: arcs-on-error).
    """
    before = command.trigger.step if command.trigger is not None else None
    return command.scope["output"] if before == command.step.name else dict(_NO_OUTPUT)


def _with_context(output: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    data = output["data"]
    if not isinstance(data, dict):
        return dict(output)
    # Recorded (http-step-pages): if the result has a key `data`, `output.data` is that key's value.
    return {**output, "data": data["data"] if "data" in data else with_context(data), "context": data}


def with_context(value: JsonValue) -> JsonValue:
    """Return a step's result as templates see it (protocol/events.md#python-plane).

    An object gets a key `context` that contains the object: `{"n": 1}` becomes `{"n": 1, "context": {"n": 1}}`. A list
    becomes a ListResult.
    """
    if isinstance(value, dict) and "context" not in value:
        return {**value, "context": value}
    return ListResult(value) if isinstance(value, list) else value


def _manifest(keychain: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    return {
        "entries": {
            str(entry.get("name")): {"kind": entry.get("kind"), "fields": list(fields_of(entry.get("map")))}
            for entry in keychain
        }
    }


def _loop_input(position: Position) -> dict[str, JsonValue]:
    return {
        "__loop_epoch_id": position.run.epoch_id,
        "__loop_claimed_index": position.index,
        "__loop_collection_size": len(position.run.items),
    }


def _tool_config(step: Step, scope: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the `tool_config` of a command.

    The config has the tool's rendered fields. A missing `spec` or `output` is null, as the plane sends it. The tasks of
    a list are not rendered.
    """
    if not isinstance(step.tool, Mapping):
        return {"tasks": [dict(task) for task in step.tool or ()]}
    config = rendered_tool(step.tool, scope, Dialect.PYTHON, without=("kind",))
    spec = config.get("spec")
    config["spec"] = {"policy": None, **spec} if isinstance(spec, dict) else None
    config.setdefault("output", None)
    return config


def _meta(execution: Execution, command: StepCommand, node: str, command_id: int) -> dict[str, JsonValue]:
    trigger, step = command.trigger, command.step
    if trigger is None:
        meta = basic_meta(execution, node, step.kind, command_id)
    else:
        meta = {
            "step": node,
            "tool_kind": step.kind,
            "actionable": True,
            "command_id": command_id,
            "triggered_by": trigger.event_type,
        }
        if trigger.batch_request_id is not None:
            meta["batch_request_id"] = str(trigger.batch_request_id)
        else:
            meta["trigger_step"] = trigger.step
        if trigger.fanout:
            meta["fanout_reduce"] = {
                "fanout_step": trigger.step,
                "target_step": step.name,
                "reduce_steps": [],
                "target_index": trigger.target_index,
                "fanout_targets": list(trigger.fanout),
                "planner_version": 1,
            }
    if step.is_sequence:
        meta["task_sequence"] = True
        meta["parent_step"] = step.name
    if command.position is not None:
        epoch_id = command.position.run.epoch_id
        meta["loop_step"] = step.name
        meta["loop_event_id"] = epoch_id
        meta["__loop_epoch_id"] = epoch_id
        meta["loop_iteration_index"] = command.position.index
    return meta
