"""The Python plane's event route: which events the plane refuses, stores and acts on (protocol/events.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from noetl_worker.authoring.dev.event_log import EventLog, LoggedEvent, event_status
from noetl_worker.authoring.dev.orchestration.execution import CommandOutcome, Execution
from noetl_worker.authoring.dev.orchestration.router import Router
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer, detail, invalid, missing, required
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.authoring.dev.server.results import Results
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.json_text import dumps, escaped_size, loads

_NOT_ACTED_ON: Final = frozenset(
    {"command.claimed", "command.heartbeat", "command.started", "command.completed", "step.enter"}
)
_DEDUPED: Final = frozenset(
    {"call.done", "call.error", "step.exit", "command.started", "command.completed", "command.failed"}
)
_RESULTS: Final = ("call.done", "call.error")
_RESULT_KEYS: Final = frozenset({"status", "reference", "context", "command_id"})
_ROW_STATUS: Final = {
    "command.started": "RUNNING",
    "command.completed": "COMPLETED",
    "command.failed": "FAILED",
}
_INTERNAL: Final = "_internal_data"
_MAX_DEPTH: Final = 8
_MOST_CONTEXT: Final = 102_400
"""Largest size in bytes of an event's `result.context`. The plane stores {} in place of a larger context."""
_CONTROL: Final = ("response", "result", "error", "loop_event_id", "loop_iteration_index")


@dataclass(frozen=True, slots=True)
class Item:
    """An event that a worker posted, under the plane's own field names."""

    step: str
    name: str
    payload: Mapping[str, JsonValue]
    meta: Mapping[str, JsonValue]
    is_actionable: bool

    @property
    def is_driving(self) -> bool:
        """True if the event can advance the execution; False: the plane only stores the event.

        Exception: the plane acts on every `command.failed` that is posted as a single event.
        """
        return self.is_actionable and self.name not in _NOT_ACTED_ON


def read_item(body: Mapping[str, JsonValue], *, default_actionable: bool) -> Item:
    """Read a posted event. `step`, `name` and `payload` win over their aliases `node_name`, `event_type` and `context`.

    Raises Refused, with the plane's 422 as the answer, for a missing or mistyped field.
    """
    step = body.get("step", body.get("node_name"))
    if "step" not in body and "node_name" not in body:
        raise missing("step", dict(body))
    if not isinstance(step, str):
        raise invalid("string_type", ["body", "step"], "Input should be a valid string", step)
    name = body.get("name", body.get("event_type"))
    if not isinstance(name, str):
        raise missing("name", dict(body))
    payload = body.get("payload", body.get("context", {}))
    if not isinstance(payload, dict):
        raise invalid("dict_type", ["body", "payload"], "Input should be a valid dictionary", payload)
    return Item(step, name, payload, fields_of(body.get("meta")), bool(body.get("actionable", default_actionable)))


def check_payload(payload: Mapping[str, JsonValue]) -> None:
    """Raise ValueError for keys or types that the Python plane does not allow in an event's payload.

    The error's text is the text of the real plane's answer, which has status 500 (recorded: refused-*).
    """
    if _INTERNAL in payload:
        raise ValueError(f"payload includes forbidden inline output keys: {_INTERNAL}")
    result = payload.get("result")
    if result is None:
        return
    if not isinstance(result, dict):
        raise ValueError("payload.result must be an object")
    if unsupported := sorted(set(result) - _RESULT_KEYS):
        raise ValueError(f"payload.result includes unsupported keys: {', '.join(unsupported)}")
    for key in ("context", "reference"):
        if result.get(key) is not None and not isinstance(result[key], dict):
            raise ValueError(f"payload.result.{key} must be an object")
    if _holds_internal(result.get("context"), _MAX_DEPTH):
        raise ValueError("payload.result.context includes forbidden inline data keys")


def _holds_internal(value: JsonValue, depth: int) -> bool:
    if depth == 0:
        return False
    if isinstance(value, dict):
        return _INTERNAL in value or any(_holds_internal(inner, depth - 1) for inner in value.values())
    return isinstance(value, list) and any(_holds_internal(inner, depth - 1) for inner in value)


class PythonEvents:
    """Stores the posted events of the Python plane. Passes an event to the router if the plane acts on the event."""

    def __init__(
        self, log: EventLog, executions: Executions, router: Router, dispatcher: Dispatcher, results: Results
    ) -> None:
        self._log, self._executions, self._results = log, executions, results
        self._router, self._dispatcher = router, dispatcher

    # ── one event ───────────────────────────────────────────────────────────────────────────────

    def single(self, body: JsonValue) -> HttpAnswer:
        """Answer POST /api/events: store one event, and act on it if the event drives the execution."""
        execution_id = required("execution_id", body)["execution_id"]
        item = read_item(body, default_actionable=True)
        try:
            execution = self.execution_for(execution_id, [item])
        except (TypeError, ValueError) as error:
            return detail(500, str(error))
        ref = command_ref(item)
        if ref is not None and item.name in _DEDUPED:
            known = self._log.find_of_command(ref, (item.name,), by_batch=True)
            if known is not None:
                return answer({"status": "ok", "event_id": known, "commands_generated": 0})
        event = self.event(execution, item, worker_id=body.get("worker_id"), by_batch=False)
        self._log.append([event])
        self.mark_row(item, ref)
        if item.name == "command.failed" and not isinstance(item.payload.get("error", ""), str):
            # Recorded: the plane stores the event, fails, and does not act on it.
            return detail(500, "cannot adapt type 'dict' using placeholder '%s' (format: AUTO)")
        # Recorded (pg-bytea): a failed command ends its execution, whatever `actionable` says.
        is_driving = item.is_driving or item.name == "command.failed"
        generated = self.act(execution, item, event.event_id, None) if is_driving else 0
        return answer({"status": "ok", "event_id": event.event_id, "commands_generated": generated})

    # ── shared with the batch route ─────────────────────────────────────────────────────────────

    def execution_for(self, execution_id: JsonValue, items: Sequence[Item]) -> Execution:
        """Return the execution of posted events, after a check of the events' payloads.

        Raises TypeError or ValueError with the text of the real plane's answer, which has status 500.
        """
        number = int(execution_id)
        for item in items:
            check_payload(item.payload)
        execution = self._executions.get(number)
        if execution is None:
            raise ValueError(
                'null value in column "catalog_id" of relation "event" violates not-null constraint'
                f"\nDETAIL:  Failing row contains ({number}, ...)."
            )
        return execution

    def event(self, execution: Execution, item: Item, *, worker_id: JsonValue, by_batch: bool) -> LoggedEvent:
        """Return the row to store for a posted event.

        The plane replaces a result context above 100 KiB by {}, without an error (protocol/results.md#limits).
        """
        payload, result = item.payload, fields_of(item.payload.get("result"))
        small = {key: payload[key] for key in ("worker_id", "command_id") if key in payload}
        if "context" in result:
            context = result["context"] or {}
        else:
            context = {key: value for key, value in payload.items() if key not in _CONTROL}
        if escaped_size(dumps(context)) > _MOST_CONTEXT:
            context = {}
        status = event_status(item.name)
        stored: dict[str, JsonValue] = {"status": status, "context": {**context, **small}}
        if "reference" in result:
            stored["reference"] = result["reference"]
        return LoggedEvent(
            self._log.ids.next(),
            execution.execution_id,
            item.name,
            item.step,
            status,
            time.time(),
            result=stored,
            error=_error_text(payload.get("error")),
            meta={**item.meta, "actionable": item.is_actionable},
            worker_id=worker_id if isinstance(worker_id, str) else None,
            command_ref=command_ref(item, by_batch=by_batch),
            by_batch=by_batch,
            response=payload.get("response"),
        )

    def mark_row(self, item: Item, ref: str | None) -> None:
        """Update the status of the command that an event names, even if the plane does not act on the event."""
        status = _ROW_STATUS.get(item.name)
        if status is not None and ref is not None:
            self._log.set_status(ref, status)

    def act(self, execution: Execution, item: Item, event_id: int, request_id: int | None) -> int:
        """Let the router act on one event. Return the number of commands that were issued."""
        if execution.is_over:
            return 0  # recorded (pg-bytea): a call.error after the execution's end has no effect
        ref = command_ref(item)
        step = item.step.removesuffix(":task_sequence")
        if execution.playbook.steps and step not in execution.playbook.steps:
            return 0  # recorded: odd-call-done-unknown-step
        if item.name == "step.exit" and item.step != step:
            return 0  # the plane ignores a list of tasks here (protocol/batches.md#rescue)
        if item.name == "command.failed":
            if ref is None:
                return 0
            decision = self._router.fail(execution, ref, _error_text(item.payload.get("error")))
            return self._dispatcher.apply(execution, decision, event_id)
        if item.name not in (*_RESULTS, "step.exit"):
            return 0
        if ref is not None and self._log.command_by_ref(ref) is None:
            ref = None
        if ref is not None and ref not in execution.open_commands:
            return 0
        if ref is not None and item.name in _RESULTS and self._log.find_of_command(ref, _RESULTS, before=event_id):
            return 0  # only the first result of a command counts, even if the plane stored it without acting
        outcome = self._outcome(item, step, ref, request_id)
        return self._dispatcher.apply(execution, self._router.advance(execution, outcome), event_id)

    def _outcome(self, item: Item, step: str, ref: str | None, request_id: int | None) -> CommandOutcome:
        payload = item.payload
        is_ok = item.name == "call.done" or (item.name == "step.exit" and payload.get("status") != "FAILED")
        result = fields_of(payload.get("result"))
        reference = result.get("reference")
        if payload.get("response") is not None and item.name != "step.exit":
            value = payload["response"]
        elif isinstance(reference, dict):
            value = self._resolved(result, reference)
        elif item.step.endswith(":task_sequence") and isinstance(result.get("context"), dict):
            value = result["context"]
        else:
            value = result or dict(payload)
        merged = fields_of(fields_of(value).get("ctx")) if item.step.endswith(":task_sequence") else {}
        return CommandOutcome(
            step=step,
            is_ok=is_ok,
            value=value,
            error=None if is_ok else _error_text(payload.get("error")) or "failed",
            fails_execution=not is_ok,
            event_type=item.name,
            command_ref=ref,
            merged=merged,
            batch_request_id=request_id,
            ref=reference,
        )

    def _resolved(self, result: Mapping[str, JsonValue], reference: Mapping[str, JsonValue]) -> JsonValue:
        """Return a step's result for later steps if the worker reported only a reference to the result store.

        The value has the reported fields, the reference, and the stored data (recorded: result-reference-claim-2).
        """
        stored = self._results.find(str(reference.get("ref")))
        data = loads(stored) if stored is not None else None
        return {
            "status": result.get("status"),
            "context": result.get("context", {}),
            "reference": reference,
            "ref": reference,
            "_ref": {key: reference.get(key) for key in ("ref", "kind", "store")},
            "data": data,
            **fields_of(data),
        }


def command_ref(item: Item, *, by_batch: bool = False) -> str | None:
    """Return the id of the command that an event names, as text, or None.

    For a single event the plane reads several fields, for an event in a batch only `payload.command_id`. A text that is
    not a number counts as missing (recorded: odd4).
    """
    payload = item.payload
    places: list[JsonValue] = [payload.get("command_id")]
    if not by_batch:
        places += [
            item.meta.get("command_id"),
            fields_of(payload.get("context")).get("command_id"),
            fields_of(payload.get("result")).get("command_id"),
        ]
    for found in places:
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        if isinstance(found, str) and found.isdecimal():
            return found
    return None


def _error_text(error: JsonValue) -> str | None:
    if isinstance(error, dict):
        return str(error.get("message", error))
    return None if error is None else str(error)
