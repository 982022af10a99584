"""Reporting: makes the report of a tool's result. The result is redacted, and its size is compared with the budget of
an event.

Both planes fail on events with large results (the Python plane silently loses a context above 102,400 bytes of compact
JSON, protocol/results.md#limits). A result over this budget goes to the result store. The event then has a reference
and a preview. The result is stored before the terminal events are sent (event_set.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from noetl_worker.engine import chosen as engine
from noetl_worker.errors import DocumentError, ServerRefused
from noetl_worker.models.case import CaseDecision, Exit, Fail, SetVar
from noetl_worker.models.command import Command
from noetl_worker.models.fit import LESS_ADVICE, FitRules, FittedResult, SecretTexts
from noetl_worker.models.report import Report
from noetl_worker.models.spellings import SEQUENCES
from noetl_worker.models.task_try import TaskTry
from noetl_worker.models.tool_result import RaisedFailure, ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text import json_text
from noetl_worker.text.answer_text import answer_beginning
from noetl_worker.text.null_characters import NULL_MARK, NullCharacters, has_null, replace_null
from noetl_worker.text.secrets import redaction

T = TypeVar("T")
_MAX_GROWTH: Final = 6
"""Largest number of bytes that a plane writes for one byte of our JSON: six, because it may escape the byte 7F as
`\\u007f`."""
_MAX_ERROR_CHARS: Final = 8_000
_MAX_REASON_CHARS: Final = 500
_MAX_OUTPUT_CHARS: Final = 8_192
"""Largest number of characters of stdout, and of stderr, in a report. The worker first takes twice as many characters
from the end of the text, and redacts secrets in them. If these characters begin inside a known secret, the rest of the
secret is redacted too (`drop_half_at_start`). Then the worker cuts the text to this number."""
_MAX_ANSWER_CHARS: Final = 2_000
_NULL_KIND: Final = "transform"
_MAX_SKIPPED: Final = 20
"""Largest number of skipped cases that a report lists. A thousand would exceed the event budget."""


async def report(command: Command, result: ToolResult, decision: CaseDecision, rules: FitRules) -> Report:
    """Return the report of a tool that returned a result (docs/delivery.md).

    If a case matched, its action handles the tool's error, unless the action is `fail`. An error that no case handled
    is reported as NoETL's own workers report it, because playbooks rely on that. The Python plane gets call.error.
    The Rust plane gets call.done with the error's status, and the playbook goes on (protocol/events.md#rust-plane). If
    a task of a list raised the error, both planes get call.error (recorded: error-sql-sequence).
    """
    fitted = await fit_result(command, result, rules)
    if (result.stdout or result.stderr) and result.status is ToolStatus.SUCCESS:
        _add_output(command, result, fitted, rules)
    if result.tries or result.status is not ToolStatus.SUCCESS:
        _add_details(command, result, fitted, rules)
    action = decision.action
    if action is not None or decision.skipped:
        fitted.notes = {**fitted.notes, **_notes(decision, rules)}
    if type(action) is Fail:
        return replace(fitted, error=fit_text(action.message, rules), error_kind=None)
    if fitted.error is not None:
        return fitted
    if action is None:
        if result.status is ToolStatus.SUCCESS:
            return fitted
        if isinstance(result.error, RaisedFailure):
            return replace(fitted, error=fit_text(result.error.message, rules), error_kind=result.error.kind)
        if not RULES[command.dialect].error_fails_command:
            return fitted
        message = result.error.message if result.error is not None else f"the tool ended with {result.status.value}"
        return replace(fitted, error=fit_text(message, rules))
    if isinstance(action, Exit):
        return await _add_exit(fitted, action, rules)
    return fitted


async def report_failure(command: Command, failure: ToolResult, rules: FitRules) -> Report:
    """Return the report of a command that raised an exception, before, in or after its tool. The plane gets
    call.error."""
    message = failure.error.message if failure.error is not None else "failed without a message"
    fitted = await fit_result(command, failure, rules)
    kind = failure.error.kind if failure.error is not None else None
    return replace(fitted, error=fit_text(message, rules), error_kind=kind)


def refused_report(refused: Report, error: ServerRefused) -> Report:
    """Return a report of failure, without the result, in place of a report whose events the plane will never accept."""
    answer_text = redaction.excerpt(error.body, 500)  # a plane may quote the text it received
    text = f"the control plane refused the outcome of this command ({error.status}): {answer_text}"
    context = {"status": "error", "error": text}
    return Report(status="error", context=context, response=context, error=text, notes=refused.notes)


def _add_output(command: Command, result: ToolResult, report: Report, rules: FitRules) -> None:
    """Add the end of a tool's stdout and stderr to the report's notes for people, unless the report has the output."""
    has_output = isinstance(result.data, dict) and "stdout" in result.data
    if has_output or RULES[command.dialect].reports_output or command.kind in SEQUENCES:
        return
    output = {"stdout": _redacted_end(result.stdout or "", rules), "stderr": _redacted_end(result.stderr or "", rules)}
    _add_notes(report, {"output": output}, rules)


def _add_details(command: Command, result: ToolResult, report: Report, rules: FitRules) -> None:
    """Add details for people to the report's notes. For a list of tasks, the details are the tries of each task. For
    any other tool, they are the beginning of a failed tool's data (Python plane only)."""
    dialect = RULES[command.dialect]
    if not result.tries:
        answer = answer_beginning(result.data) if dialect.error_fails_command else ""
        answer = _redacted_start(answer, _MAX_ANSWER_CHARS, rules)
        if answer:
            _add_notes(report, {"answer": answer}, rules)
    elif command.loop is not None and dialect.loop_has_last_events and not any(one.error for one in result.tries):
        return  # the plane would give the notes of all items to later steps, as part of the loop's result
    else:
        tries = [_try_note(one, rules) for one in result.tries]
        if not _add_notes(report, {"tasks": tries}, rules):
            _add_notes(report, {"tasks": [_drop_texts(one) for one in tries]}, rules)


def _add_notes(report: Report, notes: Mapping[str, JsonValue], rules: FitRules) -> bool:
    """Add notes to a report, if an event has room for them beside the report's context. Return False if it has not.

    Notes are for people, not for a playbook's templates. But the Python plane puts the notes of a loop's items into the
    loop's result, which templates can read. So `_add_details` adds tries to an item only if one of them failed.
    """
    if not json_text.fits(json_text.dumps([report.context, notes]), rules.max_bytes):
        return False
    report.notes = {**report.notes, **notes}
    return True


def _try_note(one: TaskTry, rules: FitRules) -> dict[str, JsonValue]:
    note: dict[str, JsonValue] = {
        "name": one.task,
        "kind": one.kind,
        "attempt": one.attempt,
        "status": "error" if one.error else "ok",
        "at_ms": one.at_ms,
        "duration_ms": one.duration_ms,
    }
    if one.error:
        error, answer = (_redacted_start(text, _MAX_ANSWER_CHARS, rules) for text in (one.error, one.answer))
        note.update({"then": one.then, "error": error} | ({"answer": answer} if answer else {}))
    for name, text in (("stdout", one.stdout), ("stderr", one.stderr)):
        if text:
            note[name] = _redacted_end(text, rules)[-_MAX_ANSWER_CHARS:]
    return note


def _drop_texts(note: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in note.items() if name not in ("answer", "stdout", "stderr")}


def _redacted_start(text: str, chars: int, rules: FitRules) -> str:
    """Return the first `chars` characters of a text, with secrets redacted. The redaction covers more text than is
    returned, because it does not recognize a secret that was cut in half."""
    return _clean(redaction.first_chars(text, 4 * chars), rules)[:chars]


def _redacted_end(text: str, rules: FitRules) -> str:
    """Return the last _MAX_OUTPUT_CHARS characters of a text, with secrets redacted. The redaction covers more text
    than is returned, because it does not recognize a secret that was cut in half."""
    if len(text) > 2 * _MAX_OUTPUT_CHARS:
        end = text[-2 * _MAX_OUTPUT_CHARS :].encode("utf-8", "surrogatepass")
        text = redaction.drop_half_at_start(end).decode("utf-8", "surrogatepass")
    return _clean(text, rules)[-_MAX_OUTPUT_CHARS:]


def _notes(decision: CaseDecision, rules: FitRules) -> dict[str, JsonValue]:
    notes: dict[str, JsonValue] = {}
    if decision.action is not None:
        name = "set_var" if isinstance(decision.action, SetVar) else type(decision.action).__name__.lower()
        notes["case"] = {"index": decision.index, "action": name}
    if decision.skipped:
        notes["cases_skipped"] = [
            {"index": skipped.index, "reason": _clean(skipped.reason, rules)[:_MAX_REASON_CHARS]}
            for skipped in decision.skipped[:_MAX_SKIPPED]
        ]
        if len(decision.skipped) > _MAX_SKIPPED:
            notes["cases_skipped_count"] = len(decision.skipped)
    return notes


async def _add_exit(report: Report, action: Exit, rules: FitRules) -> Report:
    """Return the report with the status and data that a case's `exit` gives, redacted. If the data do not fit into the
    event, the command fails."""
    fitted = await _fit(action.data, rules)
    if has_null(fitted.body):
        refusal = (await _nulls(fitted.body)).refusal("the data of this case's exit")
        return replace(report, error=fit_text(refusal, rules), error_kind=_NULL_KIND)
    if fitted.size > rules.max_bytes:
        size = f"the data of this case's exit have {fitted.size} bytes, and an event takes {rules.max_bytes}"
        return replace(
            report, error=f"{size}: let `exit` return less data; the result of the step is kept", error_kind="resource"
        )
    return replace(report, exit=Exit(_clean(action.status, rules)[:_MAX_REASON_CHARS], json_text.embed(fitted.body)))


async def fit_result(command: Command, result: ToolResult, rules: FitRules) -> Report:
    """Return a report of the result that fits into the plane's events. A large result becomes a preview and an upload
    to the result store.

    Args:
        result: the tool's result, a success or a failure. A failure's message becomes part of the report's context.
        rules: the budget (bytes of compact JSON, inclusive) and the secret values to redact.

    Returns:
        The report. Its `error` is set only if a success cannot be reported, so that the command fails. In all other
        cases the caller decides whether the command failed.
    """
    if result.error is not None:  # in a message, unlike in data, the value of `password=...` is redacted
        result = replace(result, error=replace(result.error, message=fit_text(result.error.message, rules)))
    dialect, nulls = RULES[command.dialect], None
    body = dialect.result_body(result)
    fitted = await _fit(body, rules)
    if fitted.size > rules.most_bytes:
        return await _drop_data(command, result, _too_large(command, fitted.size, rules.most_bytes), rules)
    if NULL_MARK in fitted.body and has_null(fitted.body):
        nulls = await _nulls(fitted.body)
        if result.status is ToolStatus.SUCCESS:
            # No plane can store U+0000, and another character would be a wrong value for later steps. In a failure,
            # which only people read, U+0000 is replaced, and the report has a warning.
            return await _failed(command, result, fit_text(nulls.refusal("the result"), rules), _NULL_KIND, rules)
        body = nulls.without
        fitted = (await _fit(body, rules))._replace(redactions=fitted.redactions)
    is_small = fitted.size <= rules.max_bytes and (
        fitted.size < dialect.long_word_bytes or not dialect.has_long_word(fitted.body)
    )
    made = dialect.inline(command, result, fitted, body) if is_small else None
    if made and fitted.size * _MAX_GROWTH > rules.max_bytes and not dialect.takes_inline(made, fitted, rules.max_bytes):
        made = None
    if made is None:
        if fitted.preview is None:
            fitted = fitted._replace(preview=engine.fit_result(fitted.body, replace(rules, max_bytes=0)).preview)
        made = await _run_off_loop_if_large(fitted.size, partial(dialect.reference_report, command, result, fitted))
        stored = len(made.upload.data) if made.upload is not None else 0
        if stored > dialect.max_stored_bytes:
            reason = _too_large(command, fitted.size, dialect.max_stored_bytes, stored)
            return await _drop_data(command, result, reason, rules)
    if nulls is not None:
        return _add_warning(made, fit_text(nulls.warning, rules))
    return made


async def _failed(command: Command, result: ToolResult, error: str, kind: str, rules: FitRules) -> Report:
    failure = replace(result, status=ToolStatus.ERROR, error=ToolFailure(error, kind=kind))
    return replace(await fit_result(command, failure, rules), error=error, error_kind=kind)


def _too_large(command: Command, size: int, most: int, stored: int = 0) -> str:
    form = f" ({stored} bytes stored)" if stored else ""
    return (
        f"the result of step {command.step!r} has {size} bytes{form}, more than the {most} bytes that a later command "
        f"can be given: {LESS_ADVICE}"
    )


async def _drop_data(command: Command, result: ToolResult, reason: str, rules: FitRules) -> Report:
    """Return the report without the result's data, because the data are too large to be given to a later command. A
    success becomes a failure; a failure keeps its error text."""
    bare = replace(result, data=None, stdout=None, stderr=None)
    if result.status is ToolStatus.SUCCESS:
        return await _failed(command, bare, reason, "resource", rules)
    report = await fit_result(command, bare, rules)
    return _add_warning(report, reason)


def _add_warning(report: Report, text: str) -> Report:
    """Return the report with one more warning for people."""
    earlier = report.notes.get("warnings")
    return replace(report, notes={**report.notes, "warnings": [*(earlier if isinstance(earlier, list) else ()), text]})


async def _nulls(packed: bytes) -> NullCharacters:
    return await _run_off_loop_if_large(len(packed), partial(NullCharacters.find, packed))


async def _run_off_loop_if_large(size: int, call: Callable[[], T]) -> T:
    return await finished_off_loop(call) if size > redaction.LARGE else call()


def fit_text(text: str, rules: FitRules) -> str:
    """Return an error text that may leave the process: redacted, and without its middle if it is very long.

    In a huge text, only the start and the end are searched for secrets, because this runs on the event loop.
    """
    half, left_out = _MAX_ERROR_CHARS // 2, len(text) - _MAX_ERROR_CHARS
    if len(text) > redaction.LARGE:
        begin = _redacted_start(text, half, rules)
        end = _redacted_end(text, rules)
    else:
        begin = end = _clean(text, rules)
        left_out = len(end) - _MAX_ERROR_CHARS
        if left_out <= 0:
            return end
    return f"{begin[:half]}\n... {left_out} characters left out ...\n{end[-half:]}"


def _clean(text: str, rules: FitRules) -> str:
    known = SecretTexts(rules.secrets, rules.secret_words, rules.message_words)
    return replace_null(redaction.redact_text(text, known))


async def _fit(body: JsonValue, rules: FitRules) -> FittedResult:
    packed = json_text.dumps(body)
    try:
        if len(packed) > redaction.LARGE:
            return await finished_off_loop(partial(engine.fit_result, packed, rules))
        return engine.fit_result(packed, rules)
    except DocumentError:  # the body is nested deeper than the engine takes: `plain` cuts it at depth 200
        return engine.fit_result(json_text.dumps(json_text.plain(body)), rules)
