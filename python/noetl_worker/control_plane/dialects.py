"""The two event dialects: which events a command's life becomes, and in which requests they travel.

Python plane: one batch a set (string execution id, Idempotency-Key, only call.done / call.error actionable), as
recorded in `five-events-*`. Rust plane: EE-3 events; a fast command is a batch (started, call.done) and one single
`command.completed` with `meta.command_id`, since its batches lose meta (wire.md 9.3, item 8).
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from noetl_worker.models import Command, Dialect, Event, EventRequest, JsonValue, Report

__all__ = ["EventForm", "PythonForm", "RustForm", "event_form"]

SINGLE: Final = "/api/events"
BATCH: Final = "/api/events/batch"
NO_ID_YET: Final = 0
"""Stands in a body until the event is about to be sent: its id must be above those that the plane has answered."""


class EventForm(Protocol):
    """How one plane wants to be told."""

    dialect: Dialect
    worker_id: str

    def started(self, command: Command) -> list[Event]: ...
    def terminal(self, command: Command, report: Report) -> list[Event]: ...
    def requests(self, command: Command, events: Sequence[Event]) -> list[EventRequest]:
        """The requests for these events, in the order in which they must be accepted."""
        ...

    def body(self, command: Command, request: EventRequest, event_id: int) -> dict[str, JsonValue]:
        """The JSON of one request; `event_id` is used where the plane takes ids from the worker."""
        ...


def event_form(dialect: Dialect, worker_id: str) -> EventForm:
    return PythonForm(worker_id) if dialect is Dialect.PYTHON else RustForm(worker_id)


def now_text() -> str:
    """RFC 3339 with microseconds and Z, as EE-3 wants `created_at`."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class PythonForm:
    """Batches of the Python control plane (wire.md 4.5, 9.4)."""

    dialect = Dialect.PYTHON

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id

    def started(self, command: Command) -> list[Event]:
        now = now_text()
        payload = {"command_id": command.command_id, "worker_id": self.worker_id}
        return [
            Event("command.started", payload, "STARTED", now),
            Event("step.enter", {"status": "started"}, "STARTED", now),
        ]

    def terminal(self, command: Command, report: Report) -> list[Event]:
        failed = report.error is not None
        word = "FAILED" if failed else "COMPLETED"
        result = self._result(word, report)
        now = now_text()
        meta, last_meta = self._meta(command, report), {"command_id": command.command_id}
        end: dict[str, JsonValue] = {"command_id": command.command_id, "worker_id": self.worker_id, "result": result}
        if failed:
            end["error"] = report.error
        return [
            Event(
                "call.error" if failed else "call.done",
                self._call(command, report, result),
                word,
                now,
                meta,
                actionable=True,
            ),
            Event("step.exit", self._exit(command, report, result, word), word, now, meta),
            Event("command.failed" if failed else "command.completed", {**end, **report.notes}, word, now, last_meta),
        ]

    def _call(self, command: Command, report: Report, result: JsonValue) -> dict[str, JsonValue]:
        loop = command.loop
        payload: dict[str, JsonValue] = {
            "command_id": command.command_id,
            "loop_event_id": loop.event_id if loop else None,
            "loop_iteration_index": loop.iteration_index if loop else None,
            "result": result,
        }
        if report.reference is None:
            payload["response"] = report.response  # what templates of later steps see (wire.md 4.6)
        if report.error is not None:
            payload["error"] = report.error  # a string: an object is a 500 after the row is stored (wire.md 9.4)
        return payload

    @staticmethod
    def _exit(command: Command, report: Report, result: JsonValue, word: str) -> dict[str, JsonValue]:
        payload: dict[str, JsonValue] = {
            "status": word,
            "result": result,
            "error": report.error,
            "command_id": command.command_id,
        }
        if report.exit is not None:
            payload.update(status=report.exit.status, data=report.exit.data)
        return payload

    @staticmethod
    def _result(word: str, report: Report) -> dict[str, JsonValue]:
        result: dict[str, JsonValue] = {"status": word, "context": report.context}
        if report.reference is not None:
            result["reference"] = dict(report.reference)
        return result

    @staticmethod
    def _meta(command: Command, report: Report) -> dict[str, JsonValue]:
        meta: dict[str, JsonValue] = {"command_id": command.command_id}
        if report.reference is not None:
            meta["state_ref"] = report.reference.get("ref")
        if command.loop is not None:
            meta["__loop_epoch_id"] = command.loop.epoch_id
            meta["loop_iteration_index"] = command.loop.iteration_index
        return meta

    def requests(self, command: Command, events: Sequence[Event]) -> list[EventRequest]:
        # A key per set, kept over its retries: the same key with another body stores nothing (wire.md 9.4).
        key = f"{self.worker_id}:{command.execution_id}:{uuid.uuid4().hex}"
        return [EventRequest(BATCH, tuple(events), key)] if events else []

    def body(self, command: Command, request: EventRequest, event_id: int) -> dict[str, JsonValue]:
        return {
            "execution_id": str(command.execution_id),  # an int is 422 on this route
            "worker_id": self.worker_id,
            "events": [self._item(command, event) for event in request.events],
        }

    @staticmethod
    def _item(command: Command, event: Event) -> dict[str, JsonValue]:
        item: dict[str, JsonValue] = {
            "step": command.step,
            "name": event.name,
            "payload": event.payload,
            "actionable": event.actionable,
            "informative": True,
        }
        if event.meta is not None:
            item["meta"] = event.meta
        return item


class RustForm:
    """EE-3 events of the Rust control plane (wire.md 4.2, 9.3)."""

    dialect = Dialect.RUST

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id

    def started(self, command: Command) -> list[Event]:
        return [self._event(command, "command.started", "STARTED", {})]

    def terminal(self, command: Command, report: Report) -> list[Event]:
        if report.error is not None:
            error = {"error": report.error}
            if report.error_kind is not None:
                error["error_kind"] = report.error_kind
            return [
                self._event(command, "call.error", "FAILED", {"call_index": 0, **error}),
                self._event(command, "command.failed", "FAILED", {**error, **report.notes}),
            ]
        result: dict[str, JsonValue] = {"status": report.status, "context": report.context}
        if report.reference is not None:
            result["reference"] = dict(report.reference)
        events = [self._event(command, "call.done", "COMPLETED", {"call_index": 0, "result": result})]
        if report.exit is not None:
            leave = {"step": command.step, "status": report.exit.status, "data": report.exit.data}
            events.append(self._event(command, "step.exit", report.exit.status, leave))
        # call.done first: the orchestrator runs on command.completed and needs the result by then (wire.md 4.7).
        events.append(
            self._event(command, "command.completed", report.status, {"status": report.status, **report.notes})
        )
        return events

    @staticmethod
    def _event(command: Command, name: str, status: str, context: Mapping[str, JsonValue]) -> Event:
        # meta.command_id always: without it a finished command is let in again (wire.md 9.3, item 4).
        return Event(
            name,
            {"command_id": str(command.command_id), **context},
            status,
            now_text(),
            {"command_id": str(command.command_id), "attempts": command.attempt},
        )

    def requests(self, command: Command, events: Sequence[Event]) -> list[EventRequest]:
        """All but the last as one batch (or a single one as itself), the last one alone, with its meta.

        A start that travels alone goes as a batch: its ids are the plane's own, and the answer tells them. With a clock
        behind, ids made here could lie below the plane's `command.claimed`, which no answer names, and the execution
        would stay RUNNING for ever (wire.md 9.3, item 5).
        """
        if [event.name for event in events] == ["command.started"]:
            return [EventRequest(BATCH, tuple(events))]
        first, last = tuple(events[:-1]), tuple(events[-1:])
        requests = []
        if first:
            requests.append(EventRequest(BATCH if len(first) > 1 else SINGLE, first))
        if last:
            requests.append(EventRequest(SINGLE, last))
        return requests

    def body(self, command: Command, request: EventRequest, event_id: int) -> dict[str, JsonValue]:
        if request.path == BATCH:
            return {
                "execution_id": command.execution_id,
                "worker_id": self.worker_id,
                "events": [self._item(command, event) for event in request.events],
            }
        event = request.events[0]
        return {
            "execution_id": command.execution_id,
            "event_id": event_id,
            "event_type": event.name,
            "step": command.step,
            "status": event.status,
            "created_at": event.created_at,
            "context": event.payload,
            "worker_id": self.worker_id,
            "meta": event.meta,
        }

    @staticmethod
    def _item(command: Command, event: Event) -> dict[str, Any]:
        # `name` and `payload` only: together with their aliases they are a duplicate field, 422 (wire.md 9.3).
        return {
            "step": command.step,
            "name": event.name,
            "payload": event.payload,
            "actionable": False,
            "informative": True,
            "meta": event.meta,
        }
