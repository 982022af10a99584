"""The result of an ended child execution, in the format of NoETL's published worker for the control plane.

The planes show the results of the child's steps in different places:

* Python plane, status answer: the field `variables` has the values of steps. It lacks each value with a `status` or a
  `reference`, and the values of task lists. Later versions of the plane show only values made by `set`.
  (recorded: tool-shell-status-final, task-sequence-status-final; `reference` and `set`: read in the plane's source)
* Python plane, child's events: in addition they show the `reference` of a large result (protocol/results.md#limits).
  They have the `result.context` that a worker sent, but not the worker's `response`. (read in the plane's source)
* Rust plane: the status answer has no values. The child's events have the values (protocol/executions.md#children).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.models.spellings import STEP_OF_TASKS
from noetl_worker.models.wire import JsonValue, context_of, fields_of, read_events
from noetl_worker.tools.contract import ToolContext

Ask = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Type of a function that repeats a request to the control plane until the plane answers."""

_ENDED: Final = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "CANCELED": "cancelled"}
_ENDS: Final = ("call.done", "call.error", "loop.done")


class NoSuchResult(Exception):
    """The child execution completed without a result of the wanted step. The error text lists the steps that have a
    result."""


class NotShown(Exception):
    """The wanted step of the child execution ran, but the control plane does not show the step's result."""


def child_state(status: Mapping[str, JsonValue]) -> str | None:
    """Return the state of a child execution from a status answer of either plane: completed, failed or cancelled, or
    None while the child runs."""
    if status.get("is_cancelled") or status.get("cancelled"):
        return "cancelled"
    if status.get("failed"):
        return "failed"
    if status.get("completed"):
        return "completed"
    return _ENDED.get(str(status.get("status")).upper())


def has_ended(status: Mapping[str, JsonValue], before: Mapping[str, JsonValue] | None, step: str | None) -> bool:
    """Return True if a status answer says that the child execution has ended. `before` is the previous status answer.

    If the Python plane only guesses the end, the answer has `completion_inferred`. Such a guess may be wrong between
    two steps. So the guess counts only if `step` has run. Without `step`, it counts only if the previous answer had the
    same guess and the same completed steps.
    """
    if child_state(status) != "completed" or not status.get("completion_inferred"):
        return child_state(status) is not None
    ran = _completed_steps(status)
    if step is not None:
        return step in ran
    return before is not None and bool(before.get("completion_inferred")) and _completed_steps(before) == ran


async def fetch_result(
    status: Mapping[str, JsonValue], step: str | None, execution_id: int, context: ToolContext, ask: Ask
) -> JsonValue:
    """Return the result of one step of a completed child execution, or the whole child's result if `step` is None.

    Raises:
        NoSuchResult: the step has no result.
        NotShown: the step may have a result, but the plane does not show it.
        ToolError: the result store lacks the result that the child's event refers to.
    """
    if context.command.form.child_is_its_status and not _is_left_out(status, step):
        found = _variables(status)
        return dict(found) if step is None else found[step]
    detail = await ask(lambda: context.worker.control_plane.execution_detail(execution_id))
    if context.command.form.child_is_its_status:
        return await _resolved(str(step), _reference(detail, str(step)), context, ask)
    call = _last_call(detail, step)
    data, name = _result(call).get("data"), str(call.get("node_name"))
    ref = fields_of(data).get("_ref") or fields_of(_wrapped(call).get("reference")).get("ref")
    if not isinstance(ref, str):
        return data
    stored = await _resolved(name, ref, context, ask)
    # The store has the full result of the tool; the value is the data in it.
    return stored["data"] if isinstance(stored, dict) and {"data", "status"} <= stored.keys() else stored


def _is_left_out(status: Mapping[str, JsonValue], step: str | None) -> bool:
    """Return True if this step ran, but the Python plane's status answer lacks its value. Raises NoSuchResult if the
    step did not run."""
    found, ran = _variables(status), _completed_steps(status)
    if step is None or step in found:
        return False
    if step not in ran:
        raise NoSuchResult(_listed({*found, *ran}))
    return True


def steps_without_value(status: Mapping[str, JsonValue]) -> list[str]:
    """Return the steps that ran but whose values the Python plane's status answer lacks."""
    return sorted(_completed_steps(status) - _variables(status).keys())


def _reference(detail: Mapping[str, JsonValue], step: str) -> str:
    """Return the reference to the step's large result in the result store. On the Python plane the reference is in the
    newest event that ended the step.

    Loops and lists of tasks always raise NotShown. The result of a loop's last item is not the result of the loop. The
    events of a list of tasks have another name than the step (protocol/command.md#loops).

    Raises:
        NotShown: the newest event has no reference.
    """
    ends = (event for event in _events(detail) if event.get("node_name") == step and event.get("event_type") in _ENDS)
    last = next(ends, {})
    ref = fields_of(fields_of(last.get("result")).get("reference")).get("ref")
    if last.get("event_type") != "call.done" or not isinstance(ref, str):
        raise NotShown(step)
    return ref


def _variables(status: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    return fields_of(status.get("variables"))


def _completed_steps(status: Mapping[str, JsonValue]) -> set[str]:
    ran = status.get("completed_steps")
    return {str(name).removesuffix(STEP_OF_TASKS) for name in ran} if isinstance(ran, list) else set()


# ── the Rust plane: the child's events ──────────────────────────────────────────────────────────


def _last_call(detail: Mapping[str, JsonValue], step: str | None) -> Mapping[str, JsonValue]:
    """Return the newest `call.done` event of the step. Without a step, return the newest `call.done` event with a
    value. If no event has a value, return the newest `call.done` event."""
    calls = [event for event in _events(detail) if event.get("event_type") == "call.done"]
    fitting = [call for call in calls if step is None or str(call.get("node_name")) == step]
    if not fitting:
        raise NoSuchResult(_listed({str(call.get("node_name")) for call in calls}))
    with_value = (call for call in fitting if step is None and _result(call).get("data") is not None)
    return next(with_value, fitting[0])


def _wrapped(call: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return `result.context.result` of a `call.done` event. This object has the tool's result under `context`
    (recorded: rust-control-plane)."""
    return fields_of(context_of(call).get("result"))


def _result(call: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the tool's result in a `call.done` event: {data, status, ...}."""
    return fields_of(_wrapped(call).get("context"))


def _events(detail: Mapping[str, JsonValue]) -> Sequence[Mapping[str, Any]]:
    """Return the events of a child execution, newest first. The events are sorted by id, because the plane lists
    simultaneous events in any order."""
    return sorted(read_events(detail), key=lambda event: int(event.get("event_id") or 0), reverse=True)


async def _resolved(step: str, ref: str, context: ToolContext, ask: Ask) -> JsonValue:
    try:
        stored: JsonValue = await ask(lambda: context.worker.control_plane.resolve_result(ref))
    except ToolError as error:  # the event has only a preview, not the result
        text = f"the result of the child's step {step!r} cannot be fetched from {ref}: {error}"
        raise ToolError(text, kind=error.kind, retryable=error.retryable, code=error.code) from error
    return stored


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
