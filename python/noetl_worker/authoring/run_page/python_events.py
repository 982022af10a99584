"""The events of the Python plane (protocol/events.md#python-plane; recorded: tool-python-events-full-example).

Events name their command by the command's number, except `command.issued`, which names no command. Command numbers and
event ids both grow with time. So the lowest command number of a step belongs to the step's first `command.issued`, and
so on. If a step has more or fewer numbers than `command.issued` events, the page asks the plane for each command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.authoring.run_page.command_events import (
    ToolOutcome,
    error_text,
    parse_id,
    parse_time,
    printed,
    step_name,
)
from noetl_worker.authoring.run_page.run import ExecutionRun, RunCommand
from noetl_worker.models.wire import context_of, fields_of
from noetl_worker.remote.plane.rules import NOTED

_BESIDE: Final = ("command_id", "worker_id")
_UNWRITTEN: Final = ("spec", "output")
"""Keys that the Python plane adds to each tool_config with the value null. The execution page leaves them out.

Recorded: tool-python-events-full-example.
"""
_ITEM: Final = "__loop_claimed_index"
"""Key in a command's `input` that has the index of the loop item (recorded: loop-sequential-claim)."""


class PythonRunEvents:
    def outcome(self, event: Mapping[str, Any]) -> ToolOutcome:
        fields = {name: value for name, value in context_of(event).items() if name not in _BESIDE}
        if event.get("event_type") == NOTED:
            stdout, stderr = printed(dict(fields_of(fields.get("output"))))
            return ToolOutcome(stdout=stdout, stderr=stderr, notes=fields)
        stdout, stderr = printed(fields)
        reference = fields_of(event.get("result")).get("reference")
        if reference is not None:
            fields["reference"] = reference
        error = error_text(event.get("error")) or error_text(fields.get("error"))
        is_failed = event.get("event_type") in ("call.error", "command.failed")
        return ToolOutcome(is_failed, fields or None, stdout, stderr, error if is_failed else "")

    def events_to_request(self, events: Sequence[Mapping[str, Any]]) -> list[int]:
        issued, numbers = _by_step(events)
        return [
            parse_id(event.get("event_id"))
            for step, found in issued.items()
            if len(found) > 1 and len(found) != len(numbers.get(step, ()))
            for event in found
        ]

    def issued(self, events: Sequence[Mapping[str, Any]], asked: Mapping[int, Mapping[str, Any]]) -> list[RunCommand]:
        nodes = {parse_id(event.get("event_id")): step_name(event) for event in events}
        issued, numbers = _by_step(events)
        ids: dict[int, str] = {
            event_id: str(fields_of(command.get("meta")).get("command_id") or "") for event_id, command in asked.items()
        }
        for step, found in issued.items():
            known = sorted(numbers.get(step, ()))
            if len(found) == len(known) or len(found) == 1:
                pairs = zip(found, known, strict=False)
                ids.update((parse_id(event.get("event_id")), str(number)) for event, number in pairs)
        return [
            _command(event, nodes, ids.get(parse_id(event.get("event_id")), ""))
            for event in events
            if event.get("event_type") == "command.issued"
        ]

    def run(self, detail: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> ExecutionRun:
        started = next((event for event in events if event.get("event_type") == "playbook.initialized"), {})
        return ExecutionRun(
            execution_id=str(detail.get("execution_id")),
            path=str(detail.get("path") or ""),
            status=str(detail.get("status") or ""),
            plane="Python",
            version=str(detail.get("version") or ""),
            parent=str(detail.get("parent_execution_id") or ""),
            error=error_text(detail.get("error")),
            started=parse_time(detail.get("start_time")),
            ended=parse_time(detail.get("end_time")),
            workload=fields_of(fields_of(started.get("context")).get("result")).get("workload"),
        )


def _by_step(events: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, set[int]]]:
    """Return two mappings by step name: the step's `command.issued` events, and the ids of the commands that the
    step's other events name.

    A `command.issued` event names no command, so callers need both mappings to find the command id of each such event.
    """
    issued: dict[str, list[Mapping[str, Any]]] = {}
    numbers: dict[str, set[int]] = {}
    for event in events:
        if event.get("event_type") == "command.issued":
            issued.setdefault(step_name(event), []).append(event)
        elif number := parse_id(context_of(event).get("command_id")):
            numbers.setdefault(step_name(event), set()).add(number)
    return issued, numbers


def _command(event: Mapping[str, Any], nodes: Mapping[int, str], command_id: str) -> RunCommand:
    context = fields_of(event.get("context"))
    config, item = context.get("tool_config"), fields_of(context.get("input")).get(_ITEM)
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if value is not None or name not in _UNWRITTEN}
    return RunCommand(
        step_name(event),
        command_id,
        parse_id(event.get("event_id")),
        item=item if isinstance(item, int) else None,
        names=fields_of(context.get("render_context")),
        after=nodes.get(parse_id(event.get("parent_event_id"))),
        issued=parse_time(event.get("created_at")),
        input=config,
    )
