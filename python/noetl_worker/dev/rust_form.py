"""How the Rust plane keeps results and writes commands (wire.md 5.2, 9.3; recorded: rust-control-plane)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noetl_worker.dev.execution import Execution, LoopRun, Outcome, Position
from noetl_worker.dev.playbook import Arc, Step
from noetl_worker.dev.rendering import render_fields
from noetl_worker.dev.router import Notice, StepCommand
from noetl_worker.dev.wire_form import CommandIds, Issued
from noetl_worker.json_text import dumps
from noetl_worker.models import JsonValue

__all__ = ["RustForm"]

_POOL = "shared"
_ROUTING_ONLY = ("output", "event")
"""Names that conditions and templates may use here, and that a claim does not carry."""


class RustForm:
    """Each step's data under its name, every step's whole report under `steps`."""

    def scope(
        self, execution: Execution, *, output: Mapping[str, JsonValue] | None, event: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        scope: dict[str, JsonValue] = {**execution.workload, "workload": dict(execution.workload)}
        if execution.steps:
            scope.update(execution.namespaces)
            scope["steps"] = dict(execution.steps)
            scope["catalog_id"] = str(execution.catalog_id)
            scope["execution_id"] = str(execution.execution_id)
            scope["path"] = execution.path
        if execution.variables:
            scope["ctx"] = dict(execution.variables)
        if output is not None:
            scope["output"] = dict(output)
        scope["event"] = dict(event)
        return scope

    def with_item(self, scope: Mapping[str, JsonValue], position: Position) -> dict[str, JsonValue]:
        names = _item_names(position)
        return {**scope, **names, "iter": names}

    def keep(self, execution: Execution, step: str, outcome: Outcome) -> None:
        execution.steps[step] = {"context": outcome.reported, "status": "COMPLETED"}
        known = execution.playbook.steps.get(step) if execution.playbook is not None else None
        execution.namespaces[step] = _namespace(outcome, is_sequence=known is not None and known.is_sequence)

    def keep_item(self, execution: Execution, step: str, outcome: Outcome) -> None:
        return None  # recorded (loop-sequential): an item does not see the ones before it

    def keep_loop(self, execution: Execution, step: str, run: LoopRun) -> JsonValue:
        results = run.ordered()
        execution.steps[step] = results
        execution.namespaces[step] = results
        return results

    def loop_item(self, outcome: Outcome) -> JsonValue:
        # differs-from-upstream: the real plane keeps only command_id and status of an item; its data is lost there.
        status = "success" if outcome.is_ok else "error"
        context = {"command_id": outcome.command_ref, "status": status, "data": outcome.value}
        return {"context": context, "status": status}

    def notices_of_choice(self, chosen: Sequence[Arc], passed_over: Sequence[Arc]) -> list[Notice]:
        skipped = [Notice("step.skipped", arc.step, "SKIPPED", {"status": "SKIPPED"}) for arc in passed_over]
        entered = [Notice("step.enter", arc.step, "ENTERED", {"status": "ENTERED"}) for arc in chosen]
        return skipped + entered

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    def ids(self, execution_id: int, node: str, event_id: int, other_id: int, index: int | None) -> CommandIds:
        suffix = "" if index is None else f":i{index}"
        return CommandIds(f"{execution_id}:{node}:{event_id}{suffix}", event_id)

    def node(self, command: StepCommand) -> str:
        return command.step.name

    def issue(self, execution: Execution, command: StepCommand, ids: CommandIds) -> Issued:
        step = command.step
        context: dict[str, JsonValue] = {
            "args": {},
            "render_context": {name: value for name, value in command.scope.items() if name not in _ROUTING_ONLY},
            "tool_config": _tool_config(command),
        }
        if step.cases:
            context["cases"] = list(step.cases)
        meta = _meta(execution, step.name, step.kind, ids)
        if command.position is not None:
            run = command.position.run
            meta["item_var"] = run.iterator
            meta["iteration_index"] = command.position.index
            meta["iteration_total"] = len(run.items)
            meta["iterator_step"] = step.name
        return Issued(execution.execution_id, ids.event_id, ids.command_id, step.name, step.kind, context, meta)

    def raw(
        self, execution: Execution, node: str, action: str, context: Mapping[str, JsonValue], ids: CommandIds
    ) -> Issued:
        whole = {"args": {}, "render_context": {"workload": {}}, "tool_config": {}, **context}
        given = whole.pop("input", None)
        if given and isinstance(whole["tool_config"], dict):
            whole["tool_config"] = {**whole["tool_config"], "args": given}
        meta = _meta(execution, node, action, ids)
        return Issued(execution.execution_id, ids.event_id, ids.command_id, node, action, whole, meta)

    def notification(self, issued: Issued, server_url: str, subject: str) -> tuple[str, bytes]:
        body = {
            "command_id": issued.command_id,
            "event_id": issued.event_id,
            "execution_id": issued.execution_id,
            "execution_pool": _POOL,
            "server_url": server_url,
            "step": issued.node,
        }
        return f"{subject}.{_POOL}.{issued.execution_id}", dumps(body)


def _namespace(outcome: Outcome, *, is_sequence: bool) -> JsonValue:
    """What `{{ step.x }}` sees: the tool's data, and itself again as `data` (tools.md 3.3).

    differs-from-upstream: a failed tool's `status` and `error` are visible too; without them no arc can tell a
    failure (recorded: error-branch, where both arcs are skipped and the execution runs for ever).
    """
    value = outcome.value
    if isinstance(value, dict):
        merged = dict(value)
        if is_sequence:
            merged.update(_task_fields(value))
        merged.setdefault("data", value)
    else:
        merged = {"data": value}
    if not outcome.is_ok:
        merged.setdefault("status", "error")
        merged.setdefault("error", outcome.error)
    return merged


def _task_fields(value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A sequence's tasks give their fields to the top level when every value is an object (tools.md 5.5)."""
    merged: dict[str, JsonValue] = {}
    if value and all(isinstance(inner, dict) for inner in value.values()):
        for inner in value.values():
            merged.update(inner)
    return {**merged, **value}


def _item_names(position: Position) -> dict[str, JsonValue]:
    run = position.run
    return {"_index": position.index, "_total": len(run.items), run.iterator: position.item}


def _tool_config(command: StepCommand) -> JsonValue:
    """Inputs of step and tool become `args`, rendered; a sequence is a list of one-key objects, as written."""
    step, scope = command.step, command.scope
    names = _item_names(command.position) if command.position is not None else {}
    if not isinstance(step.tool, Mapping):
        return [{str(task.get("name")): dict(task)} for task in step.tool or ()]
    # differs-from-upstream: cases look at the tool's result, so they must reach the worker unrendered.
    kept = ("cases", "case")
    config: dict[str, JsonValue] = {
        key: value if key in kept else render_fields(value, scope)
        for key, value in step.tool.items()
        if key not in ("kind", "input", "args")
    }
    args = {**names, **_inputs(step, scope)}
    if args:
        config["args"] = args
    return config


def _inputs(step: Step, scope: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    assert isinstance(step.tool, Mapping)
    given: dict[str, JsonValue] = dict(step.input)
    for key in ("args", "input"):
        found = step.tool.get(key)
        if isinstance(found, dict):
            given.update(found)
    rendered = render_fields(given, scope)
    assert isinstance(rendered, dict)
    return rendered


def _meta(execution: Execution, node: str, kind: str, ids: CommandIds) -> dict[str, JsonValue]:
    return {
        "actionable": True,
        "attempt": 1,
        "catalog_id": str(execution.catalog_id),
        "command_id": ids.command_id,
        "execution_id": str(execution.execution_id),
        "max_attempts": 3,
        "step": node,
        "tool_kind": kind,
    }
