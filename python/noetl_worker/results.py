"""Stage 7a: a tool's result held to the event budget: redacted, measured, and told by reference when too large.

Both planes drop or choke on large results (the Python one loses the context in silence above 102,400 bytes of
compact JSON, wire.md 4.9), so what is over the budget goes to the result store and the event carries a reference
and a preview. The storing itself is the first request of the terminal set (event_set.py): it is kept and tried as
the events are.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from noetl_worker import engine, json_text, redaction
from noetl_worker.errors import DocumentError, ServerRefused
from noetl_worker.models import (
    CaseAction,
    CaseDecision,
    Command,
    Dialect,
    Exit,
    Fail,
    FitRules,
    FittedResult,
    JsonValue,
    Report,
    SetVar,
    ToolResult,
    ToolStatus,
    Upload,
)

__all__ = ["fit_result", "fit_text", "refused_report", "report", "report_failure"]

_ENVELOPE_BYTES: Final = 512
"""Room for what the event puts around the fitted result: the wrapper object and the command id."""
_THREAD_BYTES: Final = 256 * 1024
"""Above this a result is fitted beside the loop: the pure engine takes 0.3 s a megabyte."""
_MAX_ERROR_CHARS: Final = 8_000
_MAX_REASON_CHARS: Final = 500
_MAX_SKIPPED: Final = 20
"""Skipped cases that are named one by one; a thousand of them would push the terminal event over the budget."""


async def report(command: Command, result: ToolResult, decision: CaseDecision, rules: FitRules) -> Report:
    """What the plane is told of a tool that returned (ARCHITECTURE 4).

    A matched action other than `fail` handles an error. An error that no case handled follows the plane's own worker,
    because playbooks are written for it: the Python plane is told call.error, the Rust plane a call.done with that
    status (the playbook goes on; wire.md 9.3, item 7).
    """
    fitted = replace(await fit_result(command, result, rules), notes=_notes(decision, rules))
    action = decision.action
    if isinstance(action, Fail):
        return replace(fitted, error=fit_text(action.message, rules))
    if isinstance(action, Exit):
        return replace(fitted, exit=await _fit_exit(action, rules))
    if action is None and result.status is not ToolStatus.SUCCESS and command.dialect is Dialect.PYTHON:
        message = result.error.message if result.error is not None else f"the tool ended with {result.status.value}"
        return replace(fitted, error=fit_text(message, rules))
    return fitted


async def report_failure(command: Command, failure: ToolResult, rules: FitRules) -> Report:
    """What the plane is told of a command that raised before, in or after its tool: always call.error."""
    message = failure.error.message if failure.error is not None else "failed without a message"
    fitted = await fit_result(command, failure, rules)
    kind = failure.error.kind if failure.error is not None else None
    return replace(fitted, error=fit_text(message, rules), error_kind=kind)


def refused_report(refused_one: Report, error: ServerRefused) -> Report:
    """The smallest possible failure, for a set that the plane will never accept."""
    said = redaction.excerpt(error.body, 500)  # a plane may quote what it was sent
    text = f"the control plane refused the outcome of this command ({error.status}): {said}"
    context = {"status": "error", "error": text}
    return Report(status="error", context=context, response=context, error=text, notes=refused_one.notes)


def _notes(decision: CaseDecision, rules: FitRules) -> dict[str, JsonValue]:
    notes: dict[str, JsonValue] = {}
    if decision.action is not None:
        notes["case"] = {"index": decision.index, "action": _action_name(decision.action)}
    if decision.skipped:
        notes["cases_skipped"] = [
            {"index": skipped.index, "reason": engine.redact_text(skipped.reason, rules.secrets)[:_MAX_REASON_CHARS]}
            for skipped in decision.skipped[:_MAX_SKIPPED]
        ]
        if len(decision.skipped) > _MAX_SKIPPED:
            notes["cases_skipped_count"] = len(decision.skipped)
    return notes


async def _fit_exit(action: Exit, rules: FitRules) -> Exit:
    """A case's own status and data under the rules of a result; over the budget its preview stands for it."""
    inner = replace(rules, max_bytes=rules.max_bytes - _ENVELOPE_BYTES)
    fitted = await _fit(action.data, inner)
    data = fitted.body if fitted.fits(inner) else fitted.preview or b'{"_truncated":true}'
    return Exit(engine.redact_text(action.status, rules.secrets)[:_MAX_REASON_CHARS], json_text.embed(data))


def _action_name(action: CaseAction) -> str:
    return "set_var" if isinstance(action, SetVar) else type(action).__name__.lower()


async def fit_result(command: Command, result: ToolResult, rules: FitRules) -> Report:
    """Fit one result to the plane's events.

    Args:
        result: any status; a failure's message becomes part of the context.
        rules: the budget (bytes of compact JSON, inclusive) and the secret values to take out.

    Returns:
        A Report without error: `report` decides whether the command failed.
    """
    if result.error is not None:  # free text, where `password=...` goes too; in data it would be a value
        result = replace(result, error=replace(result.error, message=fit_text(result.error.message, rules)))
    body = _python_body(result) if command.dialect is Dialect.PYTHON else result.to_json()
    inner = replace(rules, max_bytes=rules.max_bytes - _ENVELOPE_BYTES)
    fitted = await _fit(body, inner)
    if fitted.fits(inner):
        return _inline(command, result, fitted)
    return _by_reference(command, result, fitted)


def fit_text(text: str, rules: FitRules) -> str:
    """An error text that may leave the process: redacted, with its middle cut when it is very long."""
    clean = engine.redact_text(text, rules.secrets)
    if len(clean) <= _MAX_ERROR_CHARS:
        return clean
    half = _MAX_ERROR_CHARS // 2
    return f"{clean[:half]}\n... {len(clean) - _MAX_ERROR_CHARS} characters left out ...\n{clean[-half:]}"


async def _fit(body: JsonValue, rules: FitRules) -> FittedResult:
    packed = json_text.dumps(body)
    try:
        if len(packed) > _THREAD_BYTES:
            return await asyncio.to_thread(engine.fit_result, packed, rules)
        return engine.fit_result(packed, rules)
    except DocumentError:  # deeper than the engine's limit: the plain form ends at depth 200
        return engine.fit_result(json_text.dumps(json_text.plain(body)), rules)


def _python_body(result: ToolResult) -> JsonValue:
    """What the Python plane's worker calls the response: the tool's data, or the failure as an object."""
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


def _inline(command: Command, result: ToolResult, fitted: FittedResult) -> Report:
    embedded = json_text.embed(fitted.body)
    if command.dialect is Dialect.PYTHON:
        context = embedded if fitted.body[:1] == b"{" else {"data": embedded}  # the context must be an object
        return Report(status=result.status.value, context=context, response=embedded)
    # command_id inside the context is what the plane counts loop items by (wire.md 9.3, item 8)
    whole = b'{"command_id":' + json_text.dumps(str(command.command_id)) + b"," + fitted.body[1:]
    return Report(status=result.status.value, context=json_text.embed(whole))


def _by_reference(command: Command, result: ToolResult, fitted: FittedResult) -> Report:
    name = command.step.replace(":", "_").replace("/", "_")
    preview = json_text.loads(fitted.preview) if fitted.preview else {"_truncated": True}
    if command.dialect is Dialect.PYTHON:
        upload = Upload(name, fitted.body, command.step, preview)
        context: JsonValue = preview if isinstance(preview, dict) else {"preview": preview}
    else:
        # command_id inside the context is what the plane counts loop items by (wire.md 9.3, item 8)
        upload = Upload(name, fitted.body, command.step, preview, {"command_id": str(command.command_id)})
        context = {"data": {"_ref": upload.mark}, **upload.beside}
    return Report(status=result.status.value, context=context, reference={"ref": upload.mark}, upload=upload)
