"""The Rust plane's two event routes: one for a single event, one for a batch (protocol/events.md#rust-plane).

The worker makes the id of a single event. The plane makes the ids of a batch's events.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.event_log import EventLog, LoggedEvent, event_status
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution
from noetl_worker.authoring.dev.orchestration.router import Router
from noetl_worker.authoring.dev.server.answers import HttpAnswer, Refused, answer, rust_error, rust_refused_body
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.errors import TemplateError
from noetl_worker.models.wire import JsonValue, fields_of

log = logging.getLogger(__name__)
_PAIRS: Final = (("step", "node_name"), ("event_type", "name"))
_TERMINAL: Final = {"command.completed": "COMPLETED", "command.failed": "FAILED"}
_DUPLICATE: Final = (
    'Database error: error returned from database: duplicate key value violates unique constraint "event_pkey"'
)
_NO_EXECUTION: Final = (
    'Database error: error returned from database: insert or update on table "event" violates foreign key constraint'
    ' "event_catalog_id_fkey"'
)


class RustEvents:
    """Stores posted events as the Rust plane does, and acts on events that report the end of a command."""

    def __init__(self, log: EventLog, executions: Executions, router: Router, dispatcher: Dispatcher) -> None:
        self._log, self._executions, self._router, self._dispatcher = log, executions, router, dispatcher
        self._seen: dict[int, int] = {}
        """The highest id of a terminal event, by execution id.

        A `call.done` with a lower id that arrives later is ignored, as by noetl-server 3.54.0. That server also looks
        for missed events once a second, and this plane does not."""

    def single(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        """Answer POST /api/events. The worker makes the event's id.

        If this id is below an id that the plane made for the command, the event does not advance the execution.
        """
        execution_id = _execution_id(body, raw)
        given, meta = body.get("event_id"), body.get("meta")
        event_id = given if isinstance(given, int) else self._log.ids.next()
        event = _read(body, raw, execution_id, event_id, meta=meta, worker_id=body.get("worker_id"))
        execution = self._execution(execution_id)
        try:
            self._log.append([event])
        except sqlite3.IntegrityError:
            return rust_error(500, _DUPLICATE)
        named = meta.get("command_id") if isinstance(meta, dict) else None
        if named is not None and event.event_type in _TERMINAL:
            # A later claim is refused as "terminal" only if the event names its command in `meta`
            # (protocol/claim.md#rust-plane).
            self._log.set_status(str(named), _TERMINAL[event.event_type])
        row = self._log.command_by_ref(event.command_ref) if event.command_ref is not None else None
        # The real plane never reads an event whose id is below the ids that it has made for this command.
        if row is None or event_id > row.high_id:
            self._act(execution, event)
        return answer({"status": "ok", "event_id": event_id, "commands_generated": 0})

    def batch(self, body: JsonValue, raw: bytes) -> HttpAnswer:
        """Answer POST /api/events/batch. The plane makes the ids and drops `meta`.

        The plane acts on an event `command.completed`, using the `call.done` before it. Any other event is only stored.
        """
        execution_id = _execution_id(body, raw)
        posted = body.get("events")
        if not isinstance(posted, list):
            raise rust_refused_body("missing field `events`", raw)
        worker_id = body.get("worker_id")
        events = [_read(entry, raw, execution_id, self._log.ids.next(), worker_id=worker_id) for entry in posted]
        execution = self._execution(execution_id)
        self._log.append(events)
        for event in events:
            if event.command_ref is not None:
                self._log.raise_high_id(event.command_ref, event.event_id)
        for event in events:
            if event.event_type in ("call.done", "command.completed"):
                self._act(execution, event)
        ids = [event.event_id for event in events]
        return answer({"status": "ok", "event_ids": ids, "commands_generated": 0})

    def _execution(self, execution_id: int) -> Execution:
        execution = self._executions.get(execution_id)
        if execution is None:
            raise Refused(rust_error(500, _NO_EXECUTION))
        return execution

    # ── what follows ────────────────────────────────────────────────────────────────────────────

    def _act(self, execution: Execution, event: LoggedEvent) -> None:
        ref, seen = event.command_ref, self._seen.get(execution.execution_id, 0)
        if event.event_type in _TERMINAL:
            self._seen[execution.execution_id] = max(seen, event.event_id)
        if ref is None or ref not in execution.open_commands:
            return
        if event.event_type == "call.done":
            if event.event_id > seen:
                execution.reported[ref] = event.result_context
        elif event.event_type == "command.completed":
            reported = execution.reported.pop(ref, event.result_context)
            self._advance(execution, _outcome(event.node, ref, reported))
        elif event.event_type in ("call.error", "command.failed"):
            self._fail(execution, event, ref)

    def _advance(self, execution: Execution, outcome: CommandOutcome) -> None:
        """Let the router decide what follows an outcome, and carry out its decision.

        An error, such as a template that the plane cannot render, fails the execution (recorded: filter-urlencode).
        """
        try:
            self._dispatcher.apply(execution, self._router.advance(execution, outcome))
        except Exception as error:  # without this the execution would run for ever
            if not isinstance(error, TemplateError):
                log.exception(
                    "dev failed at execution %s; report this with the traceback",
                    execution.execution_id,
                )
            self._dispatcher.fail(execution, error)

    def _fail(self, execution: Execution, event: LoggedEvent, ref: str) -> None:
        """Mark an execution as failed. For an event `command.failed`, also end the execution despite open commands."""
        error = event.result_context.get("error")
        execution.is_failed = execution.is_failed_by_command = True
        execution.error = str(error) if error is not None else execution.error
        if event.event_type == "command.failed":
            decision = self._router.fail(execution, ref, execution.error)
            decision.is_over = True
            self._dispatcher.apply(execution, decision)


def _execution_id(body: JsonValue, raw: bytes) -> int:
    found = body.get("execution_id") if isinstance(body, dict) else None
    if found is None:
        raise rust_refused_body("missing field `execution_id`", raw)
    try:
        return int(found)
    except (TypeError, ValueError) as error:
        raise rust_refused_body("execution_id: invalid value, expected an integer", raw) from error


def _read(
    body: JsonValue, raw: bytes, execution_id: int, event_id: int, *, meta: JsonValue = None, worker_id: JsonValue
) -> LoggedEvent:
    """Return the row to store for a posted event.

    Raises Refused, with the plane's 422 as the answer, if a field is missing or given under both of its names.
    """
    if not isinstance(body, dict):
        raise rust_refused_body("invalid type, expected a map", raw)
    for name, alias in _PAIRS:
        if name in body and alias in body:
            raise rust_refused_body(f"duplicate field `{name}`", raw)
        if name not in body and alias not in body:
            raise rust_refused_body(f"missing field `{name}`", raw)
    name, node = str(body.get("event_type", body.get("name"))), str(body.get("step", body.get("node_name")))
    context, status = fields_of(body.get("context", body.get("payload"))), body.get("status")
    if not isinstance(status, str):
        status = "STARTED" if name.rpartition(".")[2] == "started" else event_status(name)
    ref = context.get("command_id")
    return LoggedEvent(
        event_id,
        execution_id,
        name,
        node,
        status,
        time.time(),
        result={"context": context, "status": status},
        meta=meta,
        worker_id=worker_id if isinstance(worker_id, str) else None,
        command_ref=str(ref) if ref is not None else None,
    )


def _outcome(step: str, ref: str, reported: Mapping[str, JsonValue]) -> CommandOutcome:
    """Return the outcome that a worker reported for a step.

    The worker reports a tool's own failure as a `call.done` with a status. The playbook goes on after such a failure
    (protocol/events.md#rust-plane).
    """
    result = fields_of(reported.get("result"))
    context = fields_of(result.get("context"))
    reference = result.get("reference")
    value = context.get("data", dict(reported))  # recorded (error-timeout): without data, the report itself
    if isinstance(reference, dict):
        extracted = fields_of(reference.get("extracted"))
        value = {**extracted, **fields_of(value), "_store": reference.get("store")}
        value.setdefault("_ref", reference.get("ref"))
        if "uri" in reference:
            value["_uri"] = reference["uri"]
    status = str(result.get("status", "success"))
    is_ok = status not in ("error", "timeout", "FAILED")
    error = context.get("error")
    return CommandOutcome(
        step=step,
        is_ok=is_ok,
        value=value,
        reported=dict(reported),
        error=None if is_ok else str(error or status),
        command_ref=ref,
        merged=_context_updates(value),
        ref=reference,
    )


def _context_updates(value: JsonValue) -> dict[str, JsonValue]:
    """Return the values that a list of tasks wrote to `ctx` and `iter`, by name (recorded: set-rule).

    The names lack the prefixes `ctx.` and `iter.`.
    """
    updates = fields_of(fields_of(value).get("_context_updates"))
    return {key.removeprefix("ctx.").removeprefix("iter."): inner for key, inner in updates.items()}
