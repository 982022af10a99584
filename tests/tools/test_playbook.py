"""Kind `playbook`: a child execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, MaybeProcessed, ServerRefused, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import MemoryControlPlane, run_tool


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
    """Gives the statuses in turn, the last one for ever."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__()
        self.answers = list(answers)

    async def execution_status(self, execution_id: int) -> Mapping[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def wait_for(*answers: Mapping[str, Any] | Exception, **config: Any) -> Any:
    whole = {"path": "c", "return_result": True, "poll_interval": 0, **config}
    return run_tool("playbook", whole, control_plane=EndingPlane(*answers))


@pytest.mark.parametrize(
    "ended", [{"completed": True, "failed": False}, {"status": "COMPLETED"}, {"status": "completed", "completed": True}]
)
def test_result_of_the_child_is_waited_for(ended: dict[str, Any]) -> None:
    variables = {"finish": {"final": 1}}
    result = wait_for({"completed": False}, MaybeProcessed("lost"), {**ended, "variables": variables})
    assert result.status is ToolStatus.SUCCESS
    assert result.data == {
        "status": "completed", "execution_id": "1001", "path": "c", "async": False, "result": variables,
    }  # fmt: skip
    assert wait_for({**ended, "variables": variables}, return_step="finish").data["result"] == {"final": 1}


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


@pytest.mark.parametrize("name", ["return_step", "result_step"])
def test_step_that_the_child_does_not_have_is_a_failure(name: str) -> None:
    ended = {"completed": True, "variables": {"finish": 1}, "completed_steps": ["start", "finish", "end"]}
    result = wait_for(ended, **{name: "finsh"})
    assert result.error is not None
    assert (result.status, result.error.kind) == (ToolStatus.ERROR, "not_found")
    text = "child execution 1001 completed without a result of 'finsh'; it has: end, finish, start"
    assert result.error.message == text
    none = wait_for(ended, **{name: "end"})  # it ran, and left nothing
    assert (none.status, none.data["result"]) == (ToolStatus.SUCCESS, None)


def test_child_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'path' and 'catalog_id' both name a child; keep one"):
        run_tool("playbook", {"path": "c", "catalog_id": "7"})


def test_wait_ends_at_the_timeout() -> None:
    result = wait_for({"completed": False}, timeout=0.2)
    assert result.status is ToolStatus.TIMEOUT
    assert result.data["execution_id"] == "1001"


def test_path_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="'path' or 'catalog_id' is missing"):
        run_tool("playbook", {})


def test_refusal_is_a_tool_error_with_the_answer() -> None:
    class Refusing(MemoryControlPlane):
        async def execute_playbook(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
            raise ServerRefused("no", status=404, body="Playbook not found: c")

    with pytest.raises(ToolError, match=r"Failed to start child playbook 'c': 404 Playbook not found: c") as caught:
        run_tool("playbook", {"path": "c"}, control_plane=Refusing())
    assert (caught.value.kind, caught.value.retryable) == ("not_found", False)
