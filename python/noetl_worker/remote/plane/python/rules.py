"""Rules of the Python control plane's dialect (protocol/events.md#python-plane).

The terminal events of a command are sent as one batch. The batch has the execution id as a string, and is sent with an
Idempotency-Key. The worker marks only call.done and call.error as actionable, as recorded in `five-events-*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.engine import chosen as engine
from noetl_worker.models.claim import AlreadyFinished, ClaimAnswer, HeldByOther, HeldByThisWorker, RetryLater
from noetl_worker.models.command import Command, LoopPosition
from noetl_worker.models.fit import MAX_RESULT_BYTES, FitRules, FittedResult
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.spellings import SEQUENCES, STEP_OF_TASKS
from noetl_worker.models.tool_result import ToolForm, ToolResult, ToolStatus
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.remote.plane.python import store
from noetl_worker.remote.plane.python.batch_state import unqueued_batch
from noetl_worker.remote.plane.python.names import PythonNames
from noetl_worker.remote.plane.rules import (
    BATCH,
    NOTED,
    CommandFields,
    DialectRules,
    EventRequest,
    Post,
    read_preview,
    unique,
)
from noetl_worker.remote.plane.send_status import SendStatus, judge
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text

_CONTEXT_BYTES: Final = 102_400
"""Size in bytes above which the plane silently drops an event's context (protocol/results.md#limits). The plane
measures JSON with escaped non-ASCII characters: up to three times the size that the worker sends (noetl v4,
`utils.py`)."""
_NAMES_OF_PLANE: Final = frozenset({"context", "reference", "ref", "_ref"})
"""Keys that the plane adds to a stored result before templates can read the result. The plane does not add a key that
is already there. So the worker leaves a result's own fields with these names out of the fields that it stores beside
the compressed result (recorded: result-reference-claim-2)."""
_SHORT_TEXT_BYTES: Final = 500
"""Size in bytes from which a string in a preview counts as possibly cut."""
_FORBIDDEN: Final = "_internal_data"
"""Key that the plane accepts only inside an event's `response` (read in the plane's source). The plane answers 500 if
the key is in `result.context`, down to depth 8, or next to the key `result` (recorded: refused-*-internal-data*)."""
_IN_RESPONSE_ONLY: Final = frozenset({"data", "result", "rows", _FORBIDDEN})
"""Keys of a result whose values go only into an event's `response`, not into its `context`. Even a single string under
these keys can be a whole document."""
_NO_OBJECT: Final = _IN_RESPONSE_ONLY | {"context"}
_CONTAINERS: Final = (dict, list)
_JSON_TYPES: Final = frozenset({str, int, float, bool, type(None), dict, list})
_CUT: Final = "_truncated"
"""Key that marks a preview, or a shortened result of a list of tasks. The result store has the full result."""
_MAX_RESPONSE_BYTES: Final = 500_000
"""Largest number of bytes of a stored result that the event contains in full, in addition to the reference. A larger
result would keep the plane busy for over a second."""
_COPIES: Final = 6
"""Number of copies of a stored result that the plane puts into one later command (counted on NoETL 4.0.0). A stored
result may therefore have only MAX_RESULT_BYTES divided by this number."""
_FAILURE_FIELDS: Final = ("status", "error")
_MARKS: Final = frozenset({_CUT, "_keys", "_count", "_len"})
"""Keys with which a preview describes the values that were cut from the result."""
_LIMIT: Final = re.compile(rb"payload exceeds configured limit \((\d+) bytes\)")
_START: Final = ("command.started", "step.enter")
_SUCCESS: Final = ("call.done", "step.exit", "command.completed")
_FAILURE: Final = ("call.error", "step.exit", "command.failed")
_PARTS: Final[Mapping[tuple[bool, bool], tuple[EventRequest, ...]]] = {
    (False, False): (EventRequest(BATCH, _SUCCESS),),
    (False, True): (EventRequest(BATCH, _FAILURE),),
    (True, False): (EventRequest(BATCH, _START + _SUCCESS),),
    (True, True): (EventRequest(BATCH, _START + _FAILURE),),
}
"""Table of the requests that report a command's outcome. Each key is a pair of booleans: whether the requests also
report the command's start, and whether the command failed."""


class PythonRules(DialectRules):
    dialect = Dialect.PYTHON
    tools = ToolForm(
        success_word="ok",
        missing_value="",
        error_has_status_code=True,  # recorded: output-http-404
        not_of_http=frozenset({"body"}),
        main_first=True,
        reads_input_again=True,  # recorded: filters-basic, loop-number, view-shell
        says_no_result=True,  # recorded: py-print
        has_return_code=True,
        sql_has_message=True,
        numbers_statements=True,  # recorded: duckdb-multi
        noop_names_step=True,
        child_is_its_status=True,
        bare_rule_holds=True,
    )
    # a claim of 1,800 s is given to another worker, whatever the holder's health (protocol/claim.md#leases)
    claim_limit_s = 1700.0
    stale_after_s = 30.0  # protocol/claim.md#leases
    # the plane warns of every heartbeat; its own worker registers again instead (protocol/registry.md#heartbeat)
    heartbeat_registers = True
    makes_bare_stream = True
    infers_completion = True
    copies_have_text_ids = True
    step_input_wins = True  # recorded: step-input
    names = PythonNames()
    variables_have_catalog_id = True  # over a workload's (source NoETL 4.26.0); the Rust plane has it in `meta` only
    ids_are_text = True
    error_fails_command = True
    inlines_unstored_results = True
    may_still_store = True
    redacts_results = True
    store_fields: Mapping[str, JsonValue] = {"scope": "execution", "ttl": "2h"}  # as long as its NATS bucket keeps them
    max_stored_bytes = MAX_RESULT_BYTES // _COPIES
    store_routes = store.ROUTES
    is_no_route = staticmethod(store.is_no_route)
    has_expired = staticmethod(store.has_expired)
    is_packed = staticmethod(store.is_packed)
    whole_result = staticmethod(store.whole_result)
    batch_bytes = 2_097_152  # recorded: refused-batch-payload-2mib-above

    def is_health(self, body: JsonValue) -> bool:
        return bool(body == {"status": "ok"})

    def loop_position(self, meta: Mapping[str, JsonValue]) -> LoopPosition | None:
        if "loop_event_id" not in meta and "__loop_epoch_id" not in meta:
            return None
        return LoopPosition(
            event_id=meta.get("loop_event_id"),
            iteration_index=meta.get("loop_iteration_index"),
            epoch_id=meta.get("__loop_epoch_id"),
        )

    def playbook_in(self, entry: Mapping[str, JsonValue]) -> JsonValue:
        return entry.get("payload")

    def read_conflict(self, body: JsonValue, text: str, wait_s: float | None) -> ClaimAnswer:
        detail = fields_of(fields_of(body).get("detail"))
        code = detail.get("code")
        if code in ("already_terminal", "execution_cancelled"):
            return AlreadyFinished(text)
        if code == "active_claim" and detail.get("worker_id"):
            return HeldByOther(text, wait_s)
        if code == "active_claim" and detail.get("worker_status"):
            return HeldByThisWorker(text, wait_s)
        # "Command is being claimed": a momentary lock without an owner. If the message were acked, the command would
        # wait for the reaper (protocol/claim.md#python-plane).
        return RetryLater(text, wait_s)

    def variables_body(self, variables: Mapping[str, JsonValue], source_step: str | None) -> dict[str, JsonValue]:
        return {"variables": dict(variables), "var_type": "user_defined", "source_step": source_step}

    def result_body(self, result: ToolResult) -> JsonValue:
        """Return the value that the Python plane's own worker sends as `response`: the tool's data, or an object that
        describes the failure."""
        if result.status is ToolStatus.SUCCESS:
            return result.data
        failure: dict[str, JsonValue] = dict(result.data) if isinstance(result.data, dict) else {}
        if result.data is not None and not isinstance(result.data, dict):
            failure["data"] = result.data
        failure["status"] = "error"
        if result.error is not None:
            failure.update(error=result.error.message, error_kind=result.error.kind, retryable=result.error.retryable)
            if result.error.code is not None:
                failure["code"] = result.error.code
        for name in ("stdout", "stderr", "exit_code"):
            value = getattr(result, name)
            if value is not None:
                failure.setdefault(name, value)
        return failure

    def inline(self, command: Command, result: ToolResult, fitted: FittedResult, body: JsonValue) -> Report:
        is_as_sent = not fitted.redactions and _is_json(body)
        context = _plain_values(body if is_as_sent else json_text.loads_exact(fitted.body))
        return Report(status=result.status, context=context, response=json_text.embed(fitted.body))

    def takes_inline(self, report: Report, fitted: FittedResult, max_bytes: int) -> bool:
        return json_text.fits(fitted.body, max_bytes) or json_text.fits(json_text.dumps(report.context), max_bytes)

    long_word_bytes = store.LONG_WORD
    has_long_word = staticmethod(store.has_long_word)

    def reference_report(self, command: Command, result: ToolResult, fitted: FittedResult) -> Report:
        is_failure = result.status is not ToolStatus.SUCCESS
        context, upload = _stored(command.step, fitted.body, read_preview(fitted), is_failure=is_failure)
        report = Report(result.status.value, context, upload=upload)
        # The plane's own templates (of arcs) read the response, with the variables that a list of tasks has set.
        if json_text.fits(fitted.body, _MAX_RESPONSE_BYTES) and not store.has_long_word(fitted.body):
            report.response = json_text.embed(fitted.body)
        elif command.kind in SEQUENCES:
            report.response = _brief_tasks(fitted.body, _CONTEXT_BYTES)
        return report

    def is_in_memory(self, reference: Mapping[str, JsonValue]) -> bool:
        return reference.get("store") == store.IN_MEMORY

    def store_form(self, data: bytes) -> bytes:
        return store.packed_for_store(data) if len(data) > _CONTEXT_BYTES or store.has_long_word(data) else data

    def batch_limit(self, body: bytes) -> int | None:
        found = _LIMIT.search(body)
        return int(found[1]) if found else None

    def shrink(self, report: Report, step: str, max_bytes: int) -> bool:
        if report.response is None:
            return False
        whole = json_text.dumps(report.response)
        if report.upload is None and report.reference is None:
            preview = read_preview(engine.fit_result(whole, FitRules(max_bytes=0)))
            report.context, report.upload = _stored(step, whole, preview, is_failure=report.error is not None)
        room = min(max_bytes - max_bytes // 8, _CONTEXT_BYTES)
        report.response = _brief_tasks(whole, room) if step.endswith(STEP_OF_TASKS) else None
        return True

    is_stored_alone = staticmethod(store.is_over_budget)
    storing_s = staticmethod(store.scrubbing_s)

    def started(self, command: CommandFields, worker_id: str) -> Post:
        headers = {"idempotency-key": self.new_key(command.execution_id)}
        return Post(BATCH, headers, _batch(command, worker_id, _start(command, worker_id)))

    def requests(self, report: Report, *, with_start: bool) -> tuple[EventRequest, ...]:
        return _PARTS[with_start, report.error is not None]

    def judge(self, answer: Response, *, first_try: bool = True, has_own_id: bool = False) -> SendStatus:
        del first_try, has_own_id
        body = answer.json()
        if answer.status == 202 and type(body) is dict:
            is_again = "duplicate" in body and body["duplicate"] is True
            return SendStatus.DUPLICATE if is_again else SendStatus.ACCEPTED
        if answer.status == 503 and unqueued_batch(body):
            return SendStatus.LOST
        how = judge(answer)
        # The single route wraps a passing 503 into a 500 (protocol/events.md#python-plane).
        is_wrapped = answer.status >= 500 and (b"db_unavailable" in answer.body or b"503:" in answer.body)
        return SendStatus.PASSING if how is SendStatus.UNCERTAIN and is_wrapped else how

    def new_key(self, execution_id: int) -> str:
        # One key for an event set and all its tries: a known key with another body stores nothing
        # (protocol/batches.md#key).
        return f"{execution_id}:{unique()}"

    def body(
        self, command: CommandFields, worker_id: str, report: Report, part: EventRequest, own_id: int = 0
    ) -> bytes:
        command_id, step, failed = command.command_id, command.step, report.error is not None
        word = "FAILED" if failed else "COMPLETED"
        result, meta = _result(word, report), _meta(command, report)
        brief = _brief(result) if failed else result
        last: dict[str, JsonValue] = {"command_id": command_id, "worker_id": worker_id, "result": brief}
        if failed:
            last["error"] = report.error
        called, left, ended = part.events[-3:]
        events = _start(command, worker_id) if part.events[:2] == _START else []
        if report.notes:
            events.append(_noted(command, report))
        done, leave = _call(command, report, result), _exit(command, report, word, brief)
        last_meta = {"command_id": command_id}
        events += (
            {"step": step, "name": called, "payload": done, "actionable": True, "informative": True, "meta": meta},
            {"step": step, "name": left, "payload": leave, "actionable": False, "informative": True, "meta": meta},
            {"step": step, "name": ended, "payload": last, "actionable": False, "informative": True, "meta": last_meta},
        )
        return _batch(command, worker_id, events)

    def can_rescue(self, command: CommandFields) -> bool:
        """Return whether a `step.exit` event, sent as a rescue, can replace a batch of the command's events that the
        plane never processed (protocol/batches.md#rescue).

        Return False in a loop, since a rescue would repeat items that have run. Return False for a list of tasks, since
        the plane ignores their `step.exit`.
        """
        return command.loop is None and not command.step.endswith(STEP_OF_TASKS)

    def rescue(self, command: CommandFields, worker_id: str, report: Report) -> bytes:
        """Return the body of a request that replaces a batch which the plane never processed. The body has only
        the event `step.exit`, marked `actionable` so that the plane acts on the event. The request needs a new
        Idempotency-Key. The plane accepts no other replacement (protocol/batches.md#rescue)."""
        word = "FAILED" if report.error is not None else "COMPLETED"
        payload, name = _exit(command, report, word, _result(word, report)), "step.exit"
        if _has_response(report):
            payload.update(response_field(payload["result"], report.response))
        event = {"step": command.step, "name": name, "payload": payload, "actionable": True, "informative": True}
        return _batch(command, worker_id, [{**event, "meta": _meta(command, report)}])


def response_field(result: Mapping[str, Any], response: JsonValue) -> dict[str, Any]:
    """Return the payload field that has the full response in the only event of a rescue, `step.exit`. A rescue is the
    request that replaces a batch which the plane never processed (`PythonRules.rescue`).

    The response goes into `result.context`, because later steps read it there after a rescue. A response that is too
    large for a context goes into the field `response` instead.
    """
    packed = json_text.dumps(response)
    if json_text.escaped_size(packed) > _CONTEXT_BYTES:
        return {"response": response}
    if _FORBIDDEN.encode() in packed:
        response = _allowed(json_text.loads_exact(packed))
    context = response if packed[:1] == b"{" else {"data": response}
    return {"result": {**result, "context": context}}


def _allowed(value: JsonValue) -> JsonValue:
    """Return a copy of the value without the key `_internal_data`. The plane refuses this key in a context."""
    if isinstance(value, dict):
        return {name: _allowed(child) for name, child in value.items() if name != _FORBIDDEN}
    return [_allowed(child) for child in value] if isinstance(value, list) else value


def _is_json(data: JsonValue, depth: int = 2) -> bool:
    """Return whether a result has only values of JSON types. If not, the caller encodes the result as JSON and parses
    the JSON. Only two levels are checked, the top level and the level below: `_plain_values` reads no deeper values."""
    if not depth or type(data) is not dict:
        return type(data) in _JSON_TYPES
    for name in data:
        part = data[name]
        if type(name) is not str or type(part) not in _JSON_TYPES:
            return False
        if type(part) is dict and not _is_json(part, depth - 1):
            return False
    return True


def _plain_values(data: JsonValue) -> JsonValue:
    """Return the plain values of a result: values that are no objects or lists, at the top or one level below. Return
    None if there are none.

    All three terminal events repeat these values, like the events of the plane's own worker (recorded). The full result
    is only in `call.done`, as `response`. Templates, arcs and `set` of later steps read `response`. With full copies in
    all events, a result of 100 bytes made 5 kB of events.
    """
    if not isinstance(data, dict):
        return None
    found = _scalars(data)
    for name in data:
        # `context` as an object is another copy of a step's result (protocol/events.md#python-plane)
        if type(data[name]) is dict and name not in _NO_OBJECT and (inner := _scalars(data[name])):
            found[name] = inner
    return found or None


def _scalars(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    found = {}
    for name in data:
        if type(data[name]) not in _CONTAINERS and name not in _IN_RESPONSE_ONLY:
            found[name] = data[name]
    return found


def _stored(step: str, whole: bytes, preview: JsonValue, *, is_failure: bool) -> tuple[dict[str, JsonValue], Upload]:
    """Return the event's context and the upload for a result that goes to the result store.

    The upload has the whole result, but compressed, so the plane's templates cannot read the fields in it. Therefore
    the context and the upload also have, uncompressed, the small fields that the result's preview did not cut. If a
    template needs another field, the plane leaves rendering the template to the worker. The context of a failure also
    has the status and the error.
    """
    fields = fields_of(_allowed(preview))
    small = {name: value for name, value in fields.items() if name not in _MARKS and _is_whole(value)}
    said: dict[str, JsonValue] = {name: fields[name] for name in _FAILURE_FIELDS if is_failure and name in fields}
    beside = {name: value for name, value in small.items() if name not in _NAMES_OF_PLANE}
    context: dict[str, JsonValue] = {**small, **said, _CUT: True}
    return context, Upload(step, store.packed_for_store(whole, beside), step, context)


def _is_whole(value: JsonValue) -> bool:
    """Return whether nothing was cut from this value of a preview."""
    if isinstance(value, str):
        return len(value.encode()) < _SHORT_TEXT_BYTES
    if isinstance(value, dict):
        return _CUT not in value and all(map(_is_whole, value.values()))
    return all(map(_is_whole, value)) if isinstance(value, list) else True


def _brief_tasks(whole: bytes, room: int) -> JsonValue:
    """Remove values from the result of a list of tasks until at most `room` bytes remain. Return None if the result was
    shortened before, or is not an object.

    The largest results are removed first, and the tasks' variables (`ctx`) last, because no other event field has these
    variables. If a template needs a removed value, the plane leaves rendering to the worker, which reads the full
    result from the store.
    """
    data = json_text.loads_exact(whole)
    if not isinstance(data, dict) or _CUT in data:  # already cut to another limit
        return None
    parts: list[tuple[bool, int, dict[str, JsonValue], str]] = []
    for name in data:
        holder, names = (data[name], data[name]) if name in ("results", "ctx") else (data, (name,))
        sized = ((json_text.escaped_size(json_text.dumps(holder[key])), holder, key) for key in names)
        parts += [(name != "ctx", *part) for part in sized]
    for may_go, size, holder, key in sorted(parts, key=lambda part: part[:2]):
        room -= size
        if room < 0 or (may_go and store.has_long_word(json_text.dumps(holder[key]))):
            del holder[key]
    return {**data, _CUT: True}


def _start(command: CommandFields, worker_id: str) -> list[dict[str, Any]]:
    step, started, entered = command.step, *_START
    payload = {"command_id": command.command_id, "worker_id": worker_id}
    of_step = {"status": "started"}
    return [
        {"step": step, "name": started, "payload": payload, "actionable": False, "informative": True},
        {"step": step, "name": entered, "payload": of_step, "actionable": False, "informative": True},
    ]


def _batch(command: CommandFields, worker_id: str, events: list[dict[str, Any]]) -> bytes:
    # execution_id: an int is 422 on this route
    return json_text.dumps({"execution_id": str(command.execution_id), "worker_id": worker_id, "events": events})


def _result(word: str, report: Report) -> dict[str, JsonValue]:
    result: dict[str, JsonValue] = {"status": word}
    if report.context is not None:
        result["context"] = report.context
    if report.reference is not None:
        result["reference"] = report.reference
    return result


def _brief(result: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return an event's `result` with only the keys `status` and `error` left in the object `context`. The plane's own
    worker reports a failure in this way. Only the event `call.error` has the whole `context`."""
    context = result.get("context")
    if not isinstance(context, dict):
        return dict(result)
    return {**result, "context": {name: context[name] for name in _FAILURE_FIELDS if name in context}}


def _noted(command: CommandFields, report: Report) -> dict[str, Any]:
    """Return a separate event with the report's notes for people, to be sent before the terminal events.

    In a terminal event's context, the notes would reach a calling playbook: the tool kind `agent` reads the context of
    the child's last event. In an event's `meta`, nobody would see the notes, because the plane does not return `meta`
    (protocol/events.md#python-plane).
    """
    payload = {"command_id": command.command_id, "result": {"context": report.notes}}
    return {"step": command.step, "name": NOTED, "payload": payload, "actionable": False, "informative": True}


def _has_response(report: Report) -> bool:
    return report.reference is None or report.response is not None


def _call(command: CommandFields, report: Report, result: JsonValue) -> dict[str, JsonValue]:
    loop = command.loop
    payload: dict[str, JsonValue] = {
        "command_id": command.command_id,
        "loop_event_id": loop.event_id if loop else None,
        "loop_iteration_index": loop.iteration_index if loop else None,
        "result": result,
    }
    if _has_response(report):
        payload["response"] = report.response  # templates of later steps see this (protocol/events.md#python-plane)
        if isinstance(report.response, dict) and _CUT in report.response:
            payload["response"] = {**report.response, "reference": report.reference}  # leads templates to the rest
    if report.error is not None:
        # must be text: an object is a 500 after the row is stored (protocol/events.md#python-plane)
        payload["error"] = report.error
    return payload


def _exit(command: CommandFields, report: Report, word: str, result: JsonValue) -> dict[str, JsonValue]:
    payload: dict[str, JsonValue] = {
        "status": word,
        "result": result,
        "error": report.error,
        "command_id": command.command_id,
    }
    if report.exit is not None:
        payload.update(status=report.exit.status, data=report.exit.data)
    return payload


def _meta(command: CommandFields, report: Report) -> dict[str, JsonValue]:
    meta: dict[str, JsonValue] = {"command_id": command.command_id}
    if report.reference is not None:
        meta["state_ref"] = report.reference.get("ref")
    if command.loop is not None:
        meta["__loop_epoch_id"] = command.loop.epoch_id
        meta["loop_iteration_index"] = command.loop.iteration_index
    return meta
