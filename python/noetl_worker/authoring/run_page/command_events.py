"""The commands of an execution, reconstructed from its events for the execution page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from noetl_worker.authoring.run_page.run import CommandState, ExecutionRun, RunCommand
from noetl_worker.models.spellings import STEP_OF_TASKS
from noetl_worker.models.wire import JsonValue, context_of, fields_of
from noetl_worker.remote.plane.rules import NOTED

NOTES: Final = frozenset({"answer", "case", "cases_skipped", "cases_skipped_count", "output", "tasks", "warnings"})
"""Keys of the notes that a worker adds to an event for the execution page (pipeline/report/results.py)."""
_CALL_ENDS: Final = ("call.done", "call.error")
_NOT_OF_ITEM: Final = frozenset({"_first", "_index", "_last", "_total", "loop_event_id"})
_COMMAND_ENDS: Final = ("command.completed", "command.failed")


@dataclass(slots=True)
class ToolOutcome:
    """The outcome of a tool, and the worker's notes for the execution page, as read from one event."""

    is_failed: bool = False
    output: JsonValue = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    notes: Mapping[str, JsonValue] = field(default_factory=dict)


class RunDialect(Protocol):
    """The interface that reads events in the format of one plane."""

    def outcome(self, event: Mapping[str, Any]) -> ToolOutcome:
        """Return the tool's outcome that an event has. An event without an outcome may still have the worker's notes
        about the command, such as its tries: return these alone.

        Args:
            event: call.done, call.error, command.completed, command.failed, or another event with such notes.
        """

    def events_to_request(self, events: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of the command.issued events whose command must be requested from the plane.

        A command must be requested if the events do not contain all of its data.
        """

    def issued(self, events: Sequence[Mapping[str, Any]], asked: Mapping[int, Mapping[str, Any]]) -> list[RunCommand]:
        """Return a command for each command.issued event.

        Args:
            events: all events of the execution.
            asked: the plane's responses for the events that `events_to_request` returned, by the id of command.issued.
        """

    def run(self, detail: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> ExecutionRun:
        """Return the execution's own data, such as its status and times, with no commands and steps yet."""


def build_commands(
    dialect: RunDialect, events: list[Mapping[str, Any]], asked: Mapping[int, Mapping[str, Any]]
) -> list[RunCommand]:
    """Return the commands of an execution, in the order in which they were issued.

    Args:
        dialect: the reader of the plane's events.
        events: all events of the execution, in the order of their ids.
        asked: the plane's responses to `GET /api/commands/{event_id}`, by the id of command.issued.
    """
    commands = dialect.issued(events, asked)
    known = {command.command_id: command for command in commands if command.command_id}
    for event in sorted(events, key=_order):
        if not (command_id := named_command(event)):
            continue
        command = known.get(command_id)
        if command is None:  # its command.issued is not among the events
            command = known[command_id] = RunCommand(step_name(event), command_id)
            commands.append(command)
        _take(command, event, dialect)
    return commands


def _order(event: Mapping[str, Any]) -> tuple[float, int]:
    """Return the sort key of an event: its time, and then its id.

    Ids alone do not suffice, since a worker whose clock is slow makes low ids (protocol/events.md#ids).
    """
    return parse_time(event.get("created_at")) or 0.0, parse_id(event.get("event_id"))


def _take(command: RunCommand, event: Mapping[str, Any], dialect: RunDialect) -> None:
    name, at = event.get("event_type"), parse_time(event.get("created_at"))
    command.worker = str(context_of(event).get("worker_id") or command.worker)
    is_over = command.state in (CommandState.DONE, CommandState.FAILED)
    if name == "command.claimed":
        command.attempts += 1
        if not is_over or command.claimed is None:
            command.claimed = at
    elif name == "command.started":
        if not is_over or command.started is None:  # a start may come after the end (protocol/events.md#late-reports)
            command.started = at
        command.state = command.state if is_over else CommandState.RUNNING
    elif name == NOTED and not is_over:
        noted = dialect.outcome(event)
        command.notes, command.stdout, command.stderr = noted.notes, noted.stdout, noted.stderr
    elif name in _CALL_ENDS:
        command.is_raised |= name == "call.error"
        if not is_over:  # the first outcome counts (protocol/claim.md#races)
            _end(command, dialect.outcome(event), at)
    elif name in _COMMAND_ENDS:
        outcome = dialect.outcome(event)
        if not is_over:
            _end(command, outcome, at)
        command.stdout, command.stderr = command.stdout or outcome.stdout, command.stderr or outcome.stderr
        command.error = command.error or outcome.error
        command.notes = command.notes or outcome.notes
        command.is_raised |= name == "command.failed"
        if outcome.is_failed:
            command.state = CommandState.FAILED


def _end(command: RunCommand, outcome: ToolOutcome, at: float | None) -> None:
    command.state = CommandState.FAILED if outcome.is_failed else CommandState.DONE
    command.ended, command.output, command.error = at, outcome.output, outcome.error
    command.stdout, command.stderr = outcome.stdout or command.stdout, outcome.stderr or command.stderr


def printed(fields: dict[str, Any]) -> tuple[str, str]:
    """Remove `stdout` and `stderr` from a result, and return both texts, which the page shows separately."""
    stdout, stderr = (fields.pop(name) if isinstance(fields.get(name), str) else "" for name in ("stdout", "stderr"))
    return stdout, stderr


def item_in(names: Mapping[str, JsonValue]) -> JsonValue:
    """Return the loop item that a command processes, as {iterator: value}, or None for a command outside a loop.

    Args:
        names: variables of the command's templates, with their values.
    """
    return {name: value for name, value in fields_of(names.get("iter")).items() if name not in _NOT_OF_ITEM} or None


def named_command(event: Mapping[str, Any]) -> str:
    """Return the id of the command that an event names, or "" for an event without a command."""
    return str(context_of(event).get("command_id") or "")


def step_name(event: Mapping[str, Any]) -> str:
    return str(event.get("node_name") or "").removesuffix(STEP_OF_TASKS)


def parse_id(value: object) -> int:
    """Return an event's id as an integer. The value may be a number or a string; any other value gives 0."""
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() else 0


def parse_time(value: object) -> float | None:
    """Return the seconds since 1970 of an RFC 3339 text in UTC, or None for any other value.

    The fraction of a second may have any number of digits, and the text may end in `Z` or `+00:00`.
    """
    if not isinstance(value, str):
        return None
    try:
        whole = datetime.fromisoformat(value[:19]).replace(tzinfo=timezone.utc).timestamp()
        return whole + float(f"0{value[19:].rstrip('Z').partition('+')[0]}")
    except ValueError:
        return None


def error_text(value: object) -> str:
    """Return the message of an error in an event. The error may be a string or an object with `message`.

    Return "" for None (recorded: failed-error-object-events).
    """
    if isinstance(value, str):
        return value
    return str(fields_of(value).get("message") or value) if value else ""
