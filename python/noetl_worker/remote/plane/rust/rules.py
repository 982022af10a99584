"""Rules of the Rust control plane's dialect (protocol/events.md#rust-plane).

The worker reports a fast command in two requests: a batch (`command.started`, `call.done`), then `command.completed`
alone. In a batch `command.completed` would lose its `meta.command_id`, which the plane needs: the plane drops the
`meta` of events in a batch (protocol/events.md#rust-plane).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.claim import AlreadyFinished, ClaimAnswer, HeldByOther, RetryLater
from noetl_worker.models.command import Command, LoopPosition
from noetl_worker.models.fit import FittedResult
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.tool_result import ToolForm, ToolResult, ToolStatus
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.remote.plane.answers import MEANING, Meaning
from noetl_worker.remote.plane.rules import BATCH, SINGLE, CommandFields, DialectRules, EventRequest, Post, read_preview
from noetl_worker.remote.plane.rust.names import RustNames
from noetl_worker.remote.plane.send_status import SendStatus, judge
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text

_UPDATES: Final = "_context_updates"
"""Key in the result of a list of tasks. Its value has the variables that the tasks have set."""
_MOST_UPDATES_BYTES: Final = 64 * 1024
"""Largest number of bytes of the variables that tasks have set, in an event that refers to a stored result. The whole
event may have 150 kB."""
_LOST_UPDATES: Final = (
    "later steps do not get the variables that the tasks have set: with a stored result, these variables may have "
    f"{_MOST_UPDATES_BYTES} bytes; set smaller variables, or return a smaller result"
)
_STARTED: Final = "command.started"
_COMPLETED: Final = EventRequest(SINGLE, ("command.completed",), has_own_id=True)
_FAILED: Final = EventRequest(SINGLE, ("command.failed",), has_own_id=True)


def _parts(last: EventRequest, *before: str) -> Mapping[bool, tuple[EventRequest, EventRequest]]:
    """Return a mapping with the two requests that report an outcome: a batch of the events `before`, then `last` alone.

    The key False has these two requests. The key True has the same two, but the batch also reports the command's start.

    Args:
        last: request with the last event alone.
        before: names of the events before the last event.
    """
    return {False: (EventRequest(BATCH, before), last), True: (EventRequest(BATCH, (_STARTED, *before)), last)}


_SUCCESS: Final = _parts(_COMPLETED, "call.done")
_EXIT: Final = _parts(_COMPLETED, "call.done", "step.exit")
_FAILURE: Final = _parts(_FAILED, "call.error")


class RustRules(DialectRules):
    dialect = Dialect.RUST
    tools = ToolForm(
        success_word="success",
        not_of_http=frozenset({"url", "elapsed"}),
        field_list_is_json=True,
        variables_hide_arguments=True,
        start_takes_trace=True,
        sequence_is_flat=True,
    )
    accepts_same_worker = True
    keychain_is_credentials = True
    names = RustNames()
    reports_output = True
    loop_has_last_events = True  # recorded: batch-all-loop-parallel
    error_fails_command = False  # protocol/events.md#rust-plane
    redacts_results = False  # the store returns data unchanged (protocol/results.md#redaction)
    store_fields: Mapping[str, JsonValue] = {"scope": "execution"}

    def is_health(self, body: JsonValue) -> bool:
        if not isinstance(body, dict):
            return False
        return body.keys() >= {"version", "database", "nats"} or body.get("nats") == "removed"

    def loop_position(self, meta: Mapping[str, JsonValue]) -> LoopPosition | None:
        return LoopPosition(iteration_index=meta.get("iteration_index")) if "iterator_step" in meta else None

    def playbook_in(self, entry: Mapping[str, JsonValue]) -> JsonValue:
        """Read the playbook from the text `content` of the catalog's entry. The entry's `payload` has only the
        workload."""
        try:
            from noetl_worker.text import yaml_text  # only when needed: a worker is installed without it
        except ImportError as error:
            raise ConfigurationError(
                "the Rust plane's playbooks are YAML: pip install 'noetl-worker[local]'"
            ) from error
        return yaml_text.loads(str(entry.get("content")))

    def read_conflict(self, body: JsonValue, text: str, wait_s: float | None) -> ClaimAnswer:
        message = str(fields_of(body).get("error", "")).lower()
        if "terminal state" in message or "cancelled" in message:
            return AlreadyFinished(text)
        if "already claimed by" in message:
            return HeldByOther(text, wait_s)
        return RetryLater(text, wait_s)

    def variables_body(self, variables: Mapping[str, JsonValue], source_step: str | None) -> dict[str, JsonValue]:
        rows = [{"var_name": n, "var_value": v, "source_step": source_step} for n, v in variables.items()]
        return {"variables": rows}

    def result_body(self, result: ToolResult) -> JsonValue:
        """Return the result as JSON. A success always has `data`, null if the tool returned no data.

        Without `data`, later steps would get the plane's own bookkeeping as the result (recorded: rhai-types).
        """
        body = result.to_json()
        if result.status is ToolStatus.SUCCESS:
            body.setdefault("data", None)
        return body

    def inline(self, command: Command, result: ToolResult, fitted: FittedResult, body: JsonValue) -> Report:
        # the plane counts loop items by the command_id inside the context (protocol/events.md#rust-plane)
        context = b'{"command_id":' + json_text.dumps(str(command.command_id)) + b"," + fitted.body[1:]
        return Report(result.status.value, json_text.embed(context))

    def reference_report(self, command: Command, result: ToolResult, fitted: FittedResult) -> Report:
        beside = {"command_id": str(command.command_id)}  # as in `inline`
        preview, notes = fields_of(read_preview(fitted)), {}
        if isinstance(result.data, dict) and _UPDATES in result.data:
            # The plane takes variables from the event alone, not from its store (protocol/results.md#store).
            updates = fields_of(fields_of(json_text.loads(fitted.body)).get("data")).get(_UPDATES)
            if json_text.fits(json_text.dumps(updates), _MOST_UPDATES_BYTES):
                preview = {**preview, _UPDATES: updates}
            else:
                notes = {"warnings": [_LOST_UPDATES]}
        upload = Upload(command.step, fitted.body, command.step, preview, beside)
        return Report(result.status.value, None, upload=upload, notes=notes)

    def started(self, command: CommandFields, worker_id: str) -> Post:
        """Return the request that reports the start of a command. The request is a batch, so that the plane makes the
        event's id, not the worker.

        On a machine whose clock is slow, the worker could make too small an id: below that of the plane's own event
        `command.claimed`, which the worker does not know. The execution would then stay RUNNING for ever
        (protocol/events.md#ids).
        """
        payload = {"command_id": str(command.command_id)}
        return Post(BATCH, {}, _batch(command, worker_id, [_item(command, _STARTED, payload)]))

    def requests(self, report: Report, *, with_start: bool) -> tuple[EventRequest, ...]:
        """Return two requests: a batch with all events but the last, and the last event alone.

        The plane makes the ids of the events in the batch. The last event has its `meta`, and an id that the worker
        makes. With this id the plane cannot store the last event twice.

        call.done comes first: the plane's orchestrator runs on command.completed and needs the result by then
        (protocol/events.md#rust-plane). While another branch of the playbook ends, the orchestrator can miss a
        call.done. The orchestrator then takes the result from command.completed, so command.completed has the result
        too. On server 3.54.0, with three branches of five steps, 17 of 120 executions lost a value without this copy.
        With the copy, 0 of 240 executions lost a value.
        """
        if report.error is not None:
            return _FAILURE[with_start]
        return _SUCCESS[with_start] if report.exit is None else _EXIT[with_start]

    def judge(self, answer: Response, *, first_try: bool = True, has_own_id: bool = False) -> SendStatus:
        if has_own_id and MEANING[answer.status] is Meaning.UNCERTAIN and self.is_stored(answer):
            # On a retry the duplicate is the worker's own event, which was stored before its answer was lost.
            return SendStatus.NEW_ID if first_try else SendStatus.ACCEPTED
        return judge(answer)

    def is_stored(self, answer: Response) -> bool:
        return b"duplicate key" in answer.body

    def names_result(self, report: Report) -> bool:
        return report.error is None  # a failure has only its text

    def body(
        self, command: CommandFields, worker_id: str, report: Report, part: EventRequest, own_id: int = 0
    ) -> bytes:
        if not part.has_own_id:
            events = [_item(command, name, _context(command, report, name)) for name in part.events]
            return _batch(command, worker_id, events)
        name = part.last
        # Without `created_at`: the plane compares times of steps by its own clock (source of server 3.54.0).
        return json_text.dumps(
            {
                "execution_id": command.execution_id,
                "event_id": own_id,
                "event_type": name,
                "step": command.step,
                "status": report.status if report.error is None else "FAILED",
                "context": _context(command, report, name),
                "worker_id": worker_id,
                "meta": _meta(command),
            }
        )

    def rescue(self, command: CommandFields, worker_id: str, report: Report) -> bytes:
        raise NotImplementedError("this plane processes a batch inside of its request")


def _batch(command: CommandFields, worker_id: str, events: list[dict[str, Any]]) -> bytes:
    return json_text.dumps({"execution_id": command.execution_id, "worker_id": worker_id, "events": events})


def _item(command: CommandFields, name: str, payload: Mapping[str, JsonValue]) -> dict[str, Any]:
    # `name` and `payload` only: together with their aliases they are a duplicate field, 422
    # (protocol/events.md#rust-plane).
    return {
        "step": command.step,
        "name": name,
        "payload": payload,
        "actionable": False,
        "informative": True,
        "meta": _meta(command),
    }


def _meta(command: CommandFields) -> dict[str, JsonValue]:
    # command_id always: without it a finished command is accepted again (protocol/claim.md#rust-plane).
    return {"command_id": str(command.command_id), "attempts": command.attempt}


def _context(command: CommandFields, report: Report, name: str) -> dict[str, JsonValue]:
    context: dict[str, JsonValue] = {"command_id": str(command.command_id)}
    if name == "call.done":
        context.update(call_index=0, result=_result(report))
    elif name == "step.exit" and report.exit is not None:
        context.update(step=command.step, status=report.exit.status, data=report.exit.data)
    elif name == "command.completed":
        context.update({"status": report.status, **report.notes})
        if command.loop is None:  # in a loop, later steps get this whole context as the item's result (recorded)
            context["result"] = _result(report)
    elif name in ("call.error", "command.failed"):
        context.update({"call_index": 0} if name == "call.error" else report.notes, error=report.error)
        if report.error_kind is not None:
            context["error_kind"] = report.error_kind
    return context


def _result(report: Report) -> dict[str, JsonValue]:
    result: dict[str, JsonValue] = {"status": report.status, "context": report.context}
    if report.reference is not None:
        result["reference"] = report.reference
    return result
