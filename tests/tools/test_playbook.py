"""Kind `playbook`: a child execution."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import virtual_time
from noetl_worker.errors import MaybeProcessed, NotSent, ServerRefused, ToolError
from noetl_worker.models import Dialect, ToolStatus
from noetl_worker.testing import MemoryControlPlane, arun_tool, run_tool

SAMPLES = Path(__file__, "../../compat/samples/rust-control-plane.jsonl").resolve()
RECORDED = {
    line["path"]: line["resp"]
    for line in map(json.loads, SAMPLES.read_text().splitlines())
    if line.get("method") == "GET"
}
"""What the Rust plane answered to GET, by path."""
PYTHON_CASES = SAMPLES.with_name("python-control-plane-cases.jsonl")
HELLO = "/api/executions/383768376746446848"
"""Steps `start` and `big`; the status answer of this plane has none of their values."""
LARGE = "/api/executions/383768619890249728"
"""Step `start` left a reference, step `use` a small value."""


def test_child_is_started_and_not_waited_for() -> None:
    plane = MemoryControlPlane()
    result = run_tool(
        "playbook", {"path": "rec/child", "input": {"who": "{{ who }}"}}, variables={"who": "ada"}, control_plane=plane
    )
    assert result.data == {"status": "started", "execution_id": "1001", "path": "rec/child", "async": True}
    assert plane.executions == {1001: {"path": "rec/child", "payload": {"who": "ada"}, "parent_execution_id": 42}}


@pytest.mark.parametrize(
    ("config", "payload"),
    [
        ({"payload": {"a": 1}, "args": {}}, {"a": 1}),
        ({"payload": {"a": 1, "b": 1}, "args": {"b": 2}}, {"a": 1, "b": 2}),
        ({}, {"step": 1}),
    ],
)
def test_payload_comes_from_payload_and_input(config: dict[str, Any], payload: dict[str, Any]) -> None:
    plane = MemoryControlPlane()
    context = {"input": {"step": 1}} if not config else {}
    run_tool("playbook", {"catalog_id": "7", "version": 2, **config}, control_plane=plane, **context)
    assert plane.executions[1001] == {
        "catalog_id": "7", "version": 2, "payload": payload, "parent_execution_id": 42,
    }  # fmt: skip


class EndingPlane(MemoryControlPlane):
    """Gives the statuses in turn, the last one for ever; `detail` is the ended child with its events."""

    def __init__(self, *answers: Mapping[str, Any] | Exception, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.detail = detail or {}

    async def execution_status(self, execution_id: int) -> Mapping[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execution_detail(self, execution_id: int) -> Mapping[str, Any]:
        return self.detail

    async def resolve_result(self, ref: str) -> Any:
        if ref in self.results:
            return json.loads(self.results[ref])
        path = f"/api/result/resolve?ref={quote(ref, safe='')}"
        if path not in RECORDED:
            raise ServerRefused("gone", status=404, body="no such result")
        return RECORDED[path]


def wait_for(*answers: Mapping[str, Any] | Exception, **config: Any) -> Any:
    """The Python plane, whose status answer has the steps' values."""
    whole = {"path": "c", "return_result": True, "poll_interval": 0, **config}
    return run_tool("playbook", whole, control_plane=EndingPlane(*answers), dialect=Dialect.PYTHON)


async def waited(config: dict[str, Any], control_plane: MemoryControlPlane, dialect: Dialect) -> Any:
    """In virtual time: the plane is asked for 15 s for a step that it does not have."""
    return await arun_tool("playbook", {"path": "c", **config}, control_plane=control_plane, dialect=dialect)


def python_status(case: str) -> dict[str, Any]:
    """The recorded status answer of an execution that ended on the Python plane."""
    lines = map(json.loads, PYTHON_CASES.read_text().splitlines())
    return next(dict(line["resp"]) for line in lines if line.get("case") == case)


COMPLETED = {
    "execution_id": 1001,
    "status": "COMPLETED",
    "current_step": "big",
    "progress": {"total_steps": 1, "failed_steps": 0, "running_steps": 2, "completed_steps": 2},
    "is_cancelled": False,
}


def wait_on_rust_plane(detail: Mapping[str, Any], *, status: Mapping[str, Any] = COMPLETED, **config: Any) -> Any:
    plane = EndingPlane(status, detail=detail)
    whole = {"path": "c", "poll_interval": 0, **config}
    return run_tool("playbook", whole, control_plane=plane, dialect=Dialect.RUST)


@pytest.mark.parametrize(
    "ended", [{"completed": True, "failed": False}, {"status": "COMPLETED"}, {"status": "completed", "completed": True}]
)
def test_result_of_the_child_is_waited_for(ended: dict[str, Any]) -> None:
    variables = {"finish": {"final": 1}}
    result = wait_for({"completed": False}, MaybeProcessed("lost"), {**ended, "variables": variables})
    assert result.status is ToolStatus.SUCCESS
    assert result.data == {
        **ended, "status": "completed", "execution_id": "1001", "path": "c", "async": False, "variables": variables,
        "result": variables,
    }  # fmt: skip
    assert wait_for({**ended, "variables": variables}, return_step="finish").data["result"] == {"final": 1}


def test_fields_of_the_status_answer_are_the_steps_on_the_python_plane() -> None:
    ended = {"completed": True, "completed_steps": ["end"], "variables": {"end": {"final": 43}}, "duration_human": "0s"}
    data = wait_for(ended, return_step="end").data
    assert {name: data[name] for name in ended} == ended


@pytest.mark.parametrize("config", [{"return_step": "end"}, {"result_step": "end"}, {"return_result": True}])
def test_inferred_completion_between_two_steps_is_not_the_childs_end(config: dict[str, Any]) -> None:
    between = {"completed": True, "completion_inferred": True, "completed_steps": ["start"], "variables": {"start": 1}}
    running = {"completed": False, "completed_steps": ["start"], "variables": {"start": 1}}
    over = {**between, "completed_steps": ["start", "end"], "variables": {"start": 1, "end": 2}}
    data = wait_for(between, running, over, **{"return_result": False, **config}).data
    assert data["variables"] == over["variables"]


@virtual_time.PASSES
async def test_step_that_the_planes_list_does_not_have_yet_is_asked_for_again() -> None:
    """Seen on the Python plane: the list came 0.3 s behind the end."""
    early = {"completed": True, "completed_steps": ["start", "test_step"], "variables": {"message": "hi"}}
    ended = {**early, "completed_steps": ["start", "test_step", "end"], "variables": {"message": "hi", "end": {"n": 1}}}
    result = await waited({"return_step": "end"}, EndingPlane(early, early, ended), Dialect.PYTHON)
    assert (result.status, result.data["result"]) == (ToolStatus.SUCCESS, {"n": 1})


def test_inferred_completion_is_believed_for_a_step_that_ran_as_a_sequence() -> None:
    ended = {"completed": True, "completion_inferred": True, "completed_steps": ["end:task_sequence"]}
    assert wait_for({**ended, "variables": {"end": 2}}, return_step="end").data["result"] == 2


# ── the Rust plane: values from the child's events ──────────────────────────────────────────────


@pytest.mark.parametrize("config", [{"return_step": "start"}, {"result_step": "start"}])
def test_step_of_the_child_gives_its_data_at_the_top_level(config: dict[str, Any]) -> None:
    result = wait_on_rust_plane(RECORDED[HELLO], **config)
    assert result.status is ToolStatus.SUCCESS
    assert result.data == {"greeting": "hello world", "n": 5, "status": COMPLETED}


def test_child_as_a_whole_gives_the_data_of_its_last_step() -> None:
    data = wait_on_rust_plane(RECORDED[HELLO], return_result=True).data
    assert data == {"exit_code": 0, "stderr": "", "stdout": "big hello world\n", "status": COMPLETED}


def test_last_event_of_the_step_counts_whatever_the_order_of_the_list() -> None:
    def done(event_id: int, data: Any) -> dict[str, Any]:
        tool_result = {"context": {"data": data, "status": "success"}, "status": "success"}
        result = {"context": {"call_index": 0, "result": tool_result}, "status": "COMPLETED"}
        return {"event_id": event_id, "event_type": "call.done", "node_name": "page", "result": result}

    detail = {"events": [done(7, {"page": 2}), done(5, {"page": 1}), done(9, None)]}
    assert wait_on_rust_plane(detail, return_result=True).data["page"] == 2  # a step without a value is passed over
    assert wait_on_rust_plane(detail, return_step="page").data is None


def test_status_of_the_childs_own_stays() -> None:
    detail = json.loads(json.dumps(RECORDED[HELLO]).replace('"greeting"', '"status"'))
    assert wait_on_rust_plane(detail, return_step="start").data == {"status": "hello world", "n": 5}


def test_reference_that_the_child_left_is_followed() -> None:
    data = wait_on_rust_plane(RECORDED[LARGE], return_step="start").data
    assert (data["count"], data["rows"][2]["i"]) == (2000, 2)


def test_reference_that_leads_nowhere_is_an_error_and_no_preview() -> None:
    detail = json.loads(json.dumps(RECORDED[LARGE]).replace("/start/38376862", "/start/99"))
    with pytest.raises(ToolError, match=r"the result of the child's step 'start' cannot be fetched from .+: gone"):
        wait_on_rust_plane(detail, return_step="start")


@virtual_time.PASSES
async def test_missing_step_on_the_rust_plane_is_named() -> None:
    text = "child execution 1001 completed without a result of 'strat'; it has: big, start"
    plane = EndingPlane(COMPLETED, detail=RECORDED[HELLO])
    result = await waited({"return_step": "strat"}, plane, Dialect.RUST)
    assert (result.error.message, result.error.kind, result.data["status"]) == (text, "not_found", COMPLETED)
    with pytest.raises(ToolError, match="without a result of 'strat'"):
        await waited({"return_result": True, "result_step": "strat"}, plane, Dialect.RUST)


def test_failed_child_whose_value_was_asked_for_fails_the_execution_on_the_rust_plane() -> None:
    failed = {**COMPLETED, "status": "FAILED"}
    with pytest.raises(ToolError, match="child execution 1001 failed"):
        wait_on_rust_plane({}, status=failed, return_result=True)
    result = wait_on_rust_plane({}, status=failed, return_step="start")
    assert (result.status, result.data["status"]) == (ToolStatus.ERROR, failed)


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        ({"failed": True, "completed": True}, "failed"),
        ({"status": "FAILED"}, "failed"),
        ({"is_cancelled": True}, "cancelled"),
    ],
)
def test_child_that_did_not_complete_is_a_failure(ended: dict[str, Any], word: str) -> None:
    result = wait_for(ended)
    assert result.status is ToolStatus.ERROR
    assert result.error.message == f"child execution 1001 {word}"
    assert result.data["status"] == word


@virtual_time.PASSES
@pytest.mark.parametrize("name", ["return_step", "result_step"])
async def test_step_that_the_child_does_not_have_is_a_failure_after_15_seconds(name: str) -> None:
    ended = {"completed": True, "variables": {"finish": 1}, "completed_steps": ["start", "finish", "end"]}
    began = time.monotonic()
    result = await waited({name: "finsh"}, EndingPlane(ended), Dialect.PYTHON)
    assert time.monotonic() - began == 15.0
    assert (result.status, result.error.kind) == (ToolStatus.ERROR, "not_found")
    text = "child execution 1001 completed without a result of 'finsh'; it has: end, finish, start"
    assert result.error.message == text


@pytest.mark.parametrize("case", ["tool-shell-status-final", "task-sequence-status-final"])
def test_value_that_the_python_plane_does_not_show_is_no_null(case: str) -> None:
    ended = python_status(case)
    text = "child execution 1001 completed, but the control plane does not show the value of its step 'start'"
    asked = wait_for(ended, return_step="start")
    assert (asked.status, asked.error.kind, asked.data["variables"]) == (
        ToolStatus.ERROR, "not_found", ended["variables"],
    )  # fmt: skip
    assert asked.error.message.startswith(text)
    assert "`set` the value in the child" in asked.error.message


PYTHON_REF = "noetl://execution/767537020863251321/result/start/403da428"
"""Recorded: result-reference-batch posts it, result-reference-claim-2 has what is stored there."""


def python_event(event_id: int, event_type: str, node: str = "start", ref: str = PYTHON_REF) -> dict[str, Any]:
    """A row in the form of the record context-102400-stored-event; `reference` as it was posted."""
    reference = {"kind": "result_ref", "ref": ref, "store": "kv", "scope": "execution"}
    result = {"status": "COMPLETED", "context": {"count": 20}, "reference": reference}
    return {"event_id": event_id, "event_type": event_type, "node_name": node, "result": result}


def wait_on_python_plane(*events: dict[str, Any], **config: Any) -> Any:
    plane = EndingPlane(python_status("tool-shell-status-final"), detail={"events": list(events)})
    plane.results[PYTHON_REF] = b'{"status": "ok", "data": {"rows": [1, 2]}}'
    whole = {"path": "c", "poll_interval": 0, "return_step": "start", **config}
    return run_tool("playbook", whole, control_plane=plane, dialect=Dialect.PYTHON)


@pytest.mark.parametrize("config", [{}, {"return_result": True}])
def test_large_result_of_a_step_is_had_from_the_store_of_the_python_plane(config: dict[str, Any]) -> None:
    older, other = python_event(5, "call.done", ref="noetl://gone"), python_event(9, "call.done", "end")
    waited = wait_on_python_plane(older, python_event(7, "call.done"), other, python_event(8, "step.exit"), **config)
    assert waited.data["result"] == {"status": "ok", "data": {"rows": [1, 2]}}, "as it was reported, whatever its names"
    assert waited.data["steps_without_value"] == ["start"], "of `variables`"


@pytest.mark.parametrize("after", ["loop.done", "call.error"])
def test_reference_of_one_run_is_not_that_of_the_step(after: str) -> None:
    waited = wait_on_python_plane(python_event(7, "call.done"), python_event(8, after))
    assert "result" not in waited.data


def test_naming_a_step_waits_for_it_whatever_it_left() -> None:
    """As on the Python plane's own worker, where that is the one way to wait."""
    ended = python_status("tool-shell-status-final")
    waited = wait_for(ended, return_result=False, return_step="start")
    assert waited.status is ToolStatus.SUCCESS
    assert (waited.data["variables"], waited.data["steps_without_value"]) == ({"word": "hello"}, ["start"])
    assert "result" not in waited.data


def test_steps_whose_values_are_not_in_the_result_are_named() -> None:
    ended = python_status("task-sequence-status-final")
    data = wait_for(ended).data
    assert (data["result"], data["steps_without_value"]) == (ended["variables"], ["start"])
    assert "steps_without_value" not in wait_for(python_status("step-set-status-final")).data


def test_wait_ends_at_the_timeout() -> None:
    result = wait_for({"completed": False}, timeout=0.5)
    assert result.status is ToolStatus.TIMEOUT
    assert result.data["execution_id"] == "1001"


class UnsurePlane(MemoryControlPlane):
    """Starts each child it is asked for; a start is answered by `problem`."""

    def __init__(self, problem: Exception | None) -> None:
        super().__init__()
        self.problem = problem

    async def execute_playbook(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        started = await super().execute_playbook(body)
        if self.problem is not None:
            raise self.problem
        return started

    async def execution_status(self, execution_id: int) -> Mapping[str, Any]:
        return {"completed": False, "status": "RUNNING"}


@pytest.mark.parametrize(
    ("problem", "tries"),
    [
        (NotSent("refused"), 3),
        (ServerRefused("x", status=429, body="later"), 3),
        (MaybeProcessed("no answer within 30 s"), 1),
        (ServerRefused("x", status=408, body="too slow"), 1),
        (ServerRefused("x", status=500, body='{"error": "boom"}'), 1),
        (ServerRefused("x", status=502, body="<html>", is_page=True), 1),
        (ServerRefused("x", status=504, body="upstream timed out"), 1),
        (None, 1),
    ],
    ids=["not sent", "429", "no answer", "408", "500", "502", "504", "its wait timed out"],
)
def test_rule_that_retries_what_is_retryable_starts_no_child_that_may_be_there(
    problem: Exception | None, tries: int
) -> None:
    rule = {"when": "{{ output.error.retryable }}", "then": {"do": "retry", "attempts": 3}}
    task = {"name": "child", "kind": "playbook", "path": "c", "return_result": True, "timeout": 0.05}
    plane = UnsurePlane(problem)
    result = run_tool("task_sequence", [{**task, "spec": {"policy": {"rules": [rule]}}}], control_plane=plane)
    assert (result.status, len(plane.executions)) == (ToolStatus.ERROR, tries)


def test_refusal_is_a_tool_error_with_the_answer() -> None:
    class Refusing(MemoryControlPlane):
        async def execute_playbook(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
            raise ServerRefused("no", status=404, body="Playbook not found: c")

    with pytest.raises(ToolError, match=r"Failed to start child playbook 'c': 404 Playbook not found: c") as caught:
        run_tool("playbook", {"path": "c"}, control_plane=Refusing())
    assert (caught.value.kind, caught.value.retryable) == ("not_found", False)


async def test_next_attempt_of_a_stopped_wait_waits_for_the_same_child(dialect: Dialect) -> None:
    plane = EndingPlane({"status": "RUNNING"})
    config = {"return_step": "x", "poll_interval": 0.05}
    stopped = asyncio.ensure_future(waited(config, plane, dialect))
    while not plane.variables:
        await asyncio.sleep(0.01)
    stopped.cancel()
    await asyncio.wait({stopped})
    plane.answers = [{"failed": True}]
    result = await waited(config, plane, dialect)
    assert (result.error.kind, list(plane.executions)) == ("playbook", [1001])


async def test_wait_that_has_ended_lets_a_retry_start_another_child(dialect: Dialect) -> None:
    plane = EndingPlane({"failed": True})
    for started in (1, 2):
        await waited({"return_step": "x"}, plane, dialect)
        assert len(plane.executions) == started


async def test_plane_that_keeps_no_note_has_the_child_waited_for(dialect: Dialect) -> None:
    class NoVariables(EndingPlane):
        async def get_var(self, name: str) -> Any:
            raise ServerRefused("500", status=500, body="")

        async def set_vars(self, variables: Mapping[str, Any]) -> None:
            raise ServerRefused("500", status=500, body="")

    assert (await waited({"return_step": "x"}, NoVariables({"failed": True}), dialect)).error.kind == "playbook"
