"""The event log of a development plane: commands and events as rows of a database, and queries for these rows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, NamedTuple

from noetl_worker.authoring.dev.database import MAX_ID, Ids, connect, insert_into
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.json_text import dumps, loads


class CommandRow(NamedTuple):
    """An issued command. `context` and `meta` are compact JSON, ready for the plane's answer to a claim request."""

    event_id: int
    command_ref: str
    """The command_id as text: a number on the Python plane, `<execution>:<step>:<event>` on the Rust plane."""
    execution_id: int
    node: str
    action: str
    context: bytes
    meta: bytes
    status: str
    """State of the command: PENDING, CLAIMED, RUNNING, COMPLETED, FAILED or CANCELLED."""
    worker_id: str | None
    issued_at: float
    claimed_at: float | None
    published_at: float | None
    high_id: int
    """Largest event id that the plane made for this command. The Rust plane ignores a worker's event of a lower id."""

    @property
    def is_open(self) -> bool:
        return self.status in ("PENDING", "CLAIMED", "RUNNING")


_INSERT_COMMAND: Final = insert_into("commands", CommandRow._fields)
_SELECT_COMMAND: Final = f"SELECT {', '.join(CommandRow._fields)} FROM commands"


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A row of the event log. `context` and `result` are JSON values."""

    event_id: int
    execution_id: int
    event_type: str
    node: str
    status: str
    created_at: float
    context: JsonValue = None
    result: JsonValue = None
    error: str | None = None
    meta: JsonValue = None
    worker_id: str | None = None
    command_ref: str | None = None
    by_batch: bool = False
    parent_event_id: int | None = None
    response: JsonValue = None
    """The result that a worker sent for the templates of later steps (Python plane). Functions that were
    passed to `EventLog.listen` get this result, but the event log's database does not store it."""

    @property
    def result_context(self) -> dict[str, JsonValue]:
        """The event's `result.context`, where both planes store the worker's data; {} if there is none."""
        return fields_of(fields_of(self.result).get("context"))


def event_status(event_type: str) -> str:
    """Return FAILED, COMPLETED or RUNNING for the type of a worker's event."""
    word = event_type.rpartition(".")[2]
    if word in ("error", "failed"):
        return "FAILED"
    return "COMPLETED" if word in ("done", "exit", "completed") else "RUNNING"


_STORED: Final = tuple(field.name for field in fields(LoggedEvent) if field.name != "response")
_stored_of: Final = attrgetter(*_STORED)
_JSON_PLACES: Final = [_STORED.index(name) for name in ("context", "result", "meta")]
_EVENT_COLUMNS: Final = ", ".join(_STORED)
_INSERT_EVENT: Final = insert_into("events", _STORED)


class EventLog:
    """The commands and events of one plane. Only the event loop's thread may use this object."""

    def __init__(self, settings: PlaneSettings) -> None:
        self.db: Final = connect()
        self.ids: Final = Ids(settings.dialect)
        self._listeners: list[Callable[[LoggedEvent], None]] = []

    def close(self) -> None:
        self.db.close()

    def listen(self, listener: Callable[[LoggedEvent], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on. The returned function stops the calls."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ── events ──────────────────────────────────────────────────────────────────────────────────

    def append(self, events: Sequence[LoggedEvent]) -> None:
        """Store events in one transaction, then call the listeners.

        Raises sqlite3.IntegrityError if an event with the same id is stored already.
        """
        self.db.execute("BEGIN")
        with self.db:
            self.db.executemany(_INSERT_EVENT, map(_event_row, events))
        for listener in tuple(self._listeners):
            for event in events:
                listener(event)

    def write(self, execution_id: int, event_type: str, node: str, status: str, **rest: Any) -> LoggedEvent:
        """Store an event with a new id and the present time. Return the event.

        Args:
            rest: further fields of LoggedEvent.
        """
        event = LoggedEvent(self.ids.next(), execution_id, event_type, node, status, time.time(), **rest)
        self.append([event])
        return event

    def events(self, execution_id: int, *event_types: str, command_ref: str | None = None) -> list[LoggedEvent]:
        """Return events of an execution in the order of their ids.

        Args:
            event_types: types of the events to return; without types, events of all types are returned.
            command_ref: return only events that name this command.
        """
        parameters: list[JsonValue] = [execution_id]
        query = f"SELECT {_EVENT_COLUMNS} FROM events WHERE execution_id = ?"
        if command_ref is not None:  # the plus makes SQLite use the index of commands, which has fewer rows to read
            query = f"SELECT {_EVENT_COLUMNS} FROM events WHERE +execution_id = ? AND command_ref = ?"
            parameters.append(command_ref)
        if event_types:
            query += f" AND event_type IN ({', '.join('?' * len(event_types))})"
        rows = self.db.execute(query + " ORDER BY event_id", (*parameters, *event_types))
        return [_event(row) for row in rows]

    def last_event(self, execution_id: int) -> LoggedEvent:
        """Return the last event of an execution. Every execution has at least one event: its start."""
        row = self.db.execute(
            f"SELECT {_EVENT_COLUMNS} FROM events WHERE execution_id = ? ORDER BY event_id DESC LIMIT 1",
            (execution_id,),
        ).fetchone()
        return _event(row)

    def find_of_command(
        self, command_ref: str, event_types: Sequence[str], *, before: int = MAX_ID, by_batch: bool = False
    ) -> int | None:
        """Return the id of the last event of these types that names a command, or None.

        Args:
            before: consider only events with a smaller id.
            by_batch: consider only events that came in a batch.
        """
        marks = ", ".join("?" * len(event_types))
        query = f"SELECT max(event_id) FROM events WHERE command_ref = ? AND event_type IN ({marks})"
        values = (command_ref, *event_types, before, by_batch)
        found: int | None = self.db.execute(f"{query} AND event_id < ? AND by_batch >= ?", values).fetchone()[0]
        return found

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    def add_commands(self, commands: Sequence[CommandRow]) -> None:
        self.db.executemany(_INSERT_COMMAND, commands)

    def command(self, event_id: int) -> CommandRow | None:
        return next(self._commands("event_id = ?", event_id), None)

    def command_by_ref(self, command_ref: str) -> CommandRow | None:
        return next(self._commands("command_ref = ?", command_ref), None)

    def execution_commands(self, execution_id: int) -> list[CommandRow]:
        return list(self._commands("execution_id = ? ORDER BY event_id", execution_id))

    def commands_in(self, *statuses: str) -> list[CommandRow]:
        marks = ", ".join("?" * len(statuses))
        return list(self._commands(f"status IN ({marks}) ORDER BY event_id", *statuses))

    def _commands(self, where: str, *values: JsonValue) -> Iterator[CommandRow]:
        return (CommandRow(*row) for row in self.db.execute(f"{_SELECT_COMMAND} WHERE {where}", values))

    def set_claimed(self, command: CommandRow, worker_id: str, high_id: int) -> None:
        self.db.execute(
            "UPDATE commands SET status = 'CLAIMED', worker_id = ?, claimed_at = ?, high_id = ? WHERE event_id = ?",
            (worker_id, time.time(), high_id, command.event_id),
        )

    def set_status(self, command_ref: str, status: str) -> None:
        """Set the status of a command, unless the command has ended."""
        self.db.execute(
            "UPDATE commands SET status = ? WHERE command_ref = ? AND status IN ('PENDING', 'CLAIMED', 'RUNNING')",
            (status, command_ref),
        )

    def raise_high_id(self, command_ref: str, event_id: int) -> None:
        self.db.execute(
            "UPDATE commands SET high_id = ? WHERE command_ref = ? AND high_id < ?",
            (event_id, command_ref, event_id),
        )

    def set_published(self, event_ids: Iterable[int], at: float | None) -> None:
        self.db.executemany(
            "UPDATE commands SET published_at = ? WHERE event_id = ?", [(at, event_id) for event_id in event_ids]
        )


def _event_row(event: LoggedEvent) -> list[JsonValue]:
    row = list(_stored_of(event))
    for place in _JSON_PLACES:
        row[place] = None if row[place] is None else dumps(row[place])
    return row


def _event(row: sqlite3.Row) -> LoggedEvent:
    values = list(row)
    for place in _JSON_PLACES:
        values[place] = None if values[place] is None else loads(values[place])
    return LoggedEvent(*values)
