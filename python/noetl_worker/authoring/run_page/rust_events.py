"""The events of the Rust plane (protocol/events.md#rust-plane; recorded: batch-execution, fail-execution).

A command's id is `<execution>:<step>:<event>`, where `<event>` is the id of its `command.issued` event. In a loop,
`:i<item>` follows. No event has a command's input, so the plane is asked for each command (protocol/claim.md#fetch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noetl_worker.authoring.run_page.command_events import (
    NOTES,
    ToolOutcome,
    error_text,
    named_command,
    parse_id,
    parse_time,
    printed,
    step_name,
)
from noetl_worker.authoring.run_page.run import ExecutionRun, RunCommand
from noetl_worker.models.wire import context_of, fields_of


class RustRunEvents:
    def outcome(self, event: Mapping[str, Any]) -> ToolOutcome:
        context = context_of(event)
        result = fields_of(context.get("result"))
        fields = fields_of(result.get("context"))
        data = fields.get("data")
        output = dict(data) if isinstance(data, dict) else data
        stdout, stderr = printed(output) if isinstance(output, dict) else ("", "")
        own_stdout, own_stderr = printed(dict(fields))
        if isinstance(result.get("reference"), dict):
            output = {"reference": result["reference"]}
        error = error_text(context.get("error")) or error_text(fields.get("error"))
        is_failed = (
            event.get("event_type") in ("call.error", "command.failed")
            or result.get("status") in ("error", "timeout")
            or context.get("status") in ("error", "timeout")
        )
        notes = {name: value for name, value in context.items() if name in NOTES}
        return ToolOutcome(
            is_failed, output if output != {} else None, own_stdout or stdout, own_stderr or stderr, error, notes
        )

    def events_to_request(self, events: Sequence[Mapping[str, Any]]) -> list[int]:
        return [parse_id(event.get("event_id")) for event in events if event.get("event_type") == "command.issued"]

    def issued(self, events: Sequence[Mapping[str, Any]], asked: Mapping[int, Mapping[str, Any]]) -> list[RunCommand]:
        names = {_issued_by(command_id): command_id for event in events if (command_id := named_command(event))}
        return [
            _command(event, names, asked.get(parse_id(event.get("event_id")), {}))
            for event in events
            if event.get("event_type") == "command.issued"
        ]

    def run(self, detail: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> ExecutionRun:
        return ExecutionRun(
            execution_id=str(detail.get("execution_id")),
            path=str(detail.get("path") or ""),
            status=str(detail.get("status") or ""),
            plane="Rust",
            parent=str(detail.get("parent_execution_id") or ""),
            started=parse_time(detail.get("started_at")),
            ended=parse_time(detail.get("completed_at")),
            workload=detail.get("workload"),
        )


def _command(event: Mapping[str, Any], names: Mapping[int, str], asked: Mapping[str, Any]) -> RunCommand:
    event_id, meta = parse_id(event.get("event_id")), fields_of(asked.get("meta"))
    command_id = names.get(event_id, str(meta.get("command_id") or ""))
    return RunCommand(
        step_name(event),
        command_id,
        event_id,
        item=_item_index(command_id),
        names=fields_of(fields_of(asked.get("context")).get("render_context")),
        kind=str(meta.get("tool_kind") or ""),
        issued=parse_time(event.get("created_at")),
        input=fields_of(asked.get("context")).get("tool_config"),
    )


def _issued_by(command_id: str) -> int:
    """Return the id of a command's command.issued event, taken from the command's id."""
    head, _, last = command_id.rpartition(":")
    return parse_id(head.rpartition(":")[2] if _item_index(command_id) is not None else last)


def _item_index(command_id: str) -> int | None:
    last = command_id.rpartition(":")[2]
    return int(last[1:]) if last[:1] == "i" and last[1:].isdecimal() else None
