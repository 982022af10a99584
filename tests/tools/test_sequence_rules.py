"""Rules of the tasks of a list: which one holds, and what its action does."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.models import ToolStatus
from noetl_worker.testing import RecordedLogger
from noetl_worker.tools.kinds.task_sequence.task_sequence import python_form
from tool_settings import tool_settings
from tools.sequence_stub import ON_ERROR, StubTool, go, rules

# ── rules ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "rule",
    [
        {"when": True, "then": {"do": "break"}},
        {"when": "{{ output.ok }}", "then": {"do": "break"}},
        {"when": "{{ output.status == 'ok' }}", "then": {"do": "break"}},
        {"when": "{{ output.status == 'success' }}", "then": {"do": "break"}},
        {"when": "{{ output.status in ['success'] }}", "then": {"do": "break"}},
        {"when": "{{ outcome.status != 'error' }}", "then": {"do": "break"}},
        {"when": "{{ output.data.v == 1 }}", "then": {"do": "break"}},
        {"when": "{{ output.error is none }}", "then": "break"},
        {"when": "yes", "then": {"do": "break"}},
        {"else": {"then": {"do": "break"}}},
        {"when": True, "then": {"do": "break"}, "else": {"then": {"do": "fail"}}},
    ],
)
def test_rule_holds_on_success(rule: dict[str, Any]) -> None:
    result = go([{"kind": "stub", "say": {"v": 1}, "spec": rules(rule)}, {"kind": "stub", "fail": True}])
    assert result.status is ToolStatus.SUCCESS
    assert result.data["status"] == "break"


@pytest.mark.parametrize(
    "when",
    [
        False,
        "no",
        "{{ output.status == 'error' }}",
        "{{ missing.deep }}",
        "{{ 'off' }}",
        "{{ output.error.kind == 'timeout' }}",
        "{{ output.http.status >= 500 }}",
    ],
)
def test_rule_does_not_hold_on_success(when: Any) -> None:
    result = go([{"kind": "stub", "say": 1, "spec": rules({"when": when, "then": {"do": "fail"}})}])
    assert result.status is ToolStatus.SUCCESS


def test_condition_that_cannot_be_evaluated_is_told_and_does_not_hold() -> None:
    logger = RecordedLogger()
    compares = rules({"when": "{{ output.http.status >= 500 }}", "then": {"do": "fail"}})
    go([{"name": "a", "kind": "stub", "say": 1, "spec": compares}], logger=logger)
    ((level, event, fields),) = logger.records
    assert (level, event, fields["task"]) == ("warning", "policy_rule", "a")
    assert ">=" in fields["problem"]


@pytest.mark.parametrize(
    ("task", "kind", "retryable", "code"),
    [
        ({"kind": "stub", "fail": True}, "server_error", True, None),
        ({"kind": "stub", "crash": "tool"}, "connection", True, "08006"),
        ({"kind": "stub", "crash": "other"}, "unknown", False, "KeyError"),
        ({"kind": "stub", "wait": 0.01}, "timeout", True, None),
        ({"kind": "stub", "say": "{{ 1 // 0 }}"}, "template", False, None),
        ({"kind": "stub", "say": 1, "set": {"ctx.a": "{{ 1 // 0 }}"}}, "template", False, None),
        ({"kind": "stub", "fail": []}, "configuration", False, None),
        ({"kind": "no_such_kind"}, "configuration", False, None),
    ],
)
def test_failures_of_every_channel_reach_the_rules(
    task: dict[str, Any], kind: str, retryable: bool, code: str | None
) -> None:
    seen = {"set": {"ctx.seen": "{{ output.error }}", "ctx.status": "{{ output.status }}"}, "do": "continue"}
    result = go([{**task, "name": "a", "spec": rules({"when": ON_ERROR, "then": seen})}])
    assert result.status is ToolStatus.SUCCESS
    found = python_form(result.data)["ctx"]
    assert found["status"] == "error"
    assert (found["seen"]["kind"], found["seen"]["retryable"], found["seen"]["code"]) == (kind, retryable, code)


def test_http_status_is_at_hand_for_rules() -> None:
    seen = rules({"when": "{{ output.http.status == 503 and output.http.headers.a == 'b' }}", "then": "break"})
    task = {"kind": "stub", "say": {"status_code": 503, "headers": {"a": "b"}}, "spec": seen}
    assert go([task]).data["status"] == "break"


def test_error_without_a_rule_fails_and_later_tasks_do_not_run() -> None:
    stub = StubTool()
    result = go([{"name": "a", "kind": "stub", "fail": True}, {"kind": "stub", "say": 2}], stub=stub)
    assert result.status is ToolStatus.ERROR
    assert (result.error.message, result.error.kind) == ("planned", "server_error")
    assert len(stub.calls) == 1


def test_on_unmatched_is_the_last_rule() -> None:
    policy = {"rules": [{"when": "{{ output.ok }}", "then": "fail"}], "on_unmatched": "continue"}
    assert go([{"kind": "stub", "fail": True, "spec": {"policy": policy}}]).status is ToolStatus.SUCCESS


def test_first_rule_that_holds_decides() -> None:
    both = rules({"when": True, "then": {"do": "continue"}}, {"when": True, "then": {"do": "fail"}})
    assert go([{"kind": "stub", "say": 1, "spec": both}]).status is ToolStatus.SUCCESS


# ── actions ─────────────────────────────────────────────────────────────────────────────────────


def test_retry_until_it_succeeds() -> None:
    stub = StubTool()
    retry = rules({"when": ON_ERROR, "then": {"do": "retry", "attempts": "3", "backoff": "fixed", "delay": "0.001"}})
    result = go([{"kind": "stub", "say": "{{ _attempt }}", "fail_times": 2, "spec": retry}], stub=stub)
    assert result.data["results"] == {"task_0": 3}
    assert len(stub.calls) == 3


def test_retry_counts_all_executions_and_then_fails_with_the_tasks_error() -> None:
    stub = StubTool()
    twice = rules({"when": True, "then": {"do": "retry", "attempts": 2}})
    result = go([{"name": "a", "kind": "stub", "fail": True, "spec": twice}], stub=stub)
    assert len(stub.calls) == 2
    assert result.error.message == "planned (task 'a' exceeded retry attempts (2))"
    assert result.error.kind == "server_error"


def test_success_that_is_retried_ends_too() -> None:
    stub = StubTool()
    poll = rules({"when": "{{ output.data != 'done' }}", "then": {"do": "retry", "attempts": 4}})
    result = go([{"name": "a", "kind": "stub", "say": "not yet", "spec": poll}], stub=stub)
    assert len(stub.calls) == 4
    assert result.error.message == "task 'a' exceeded retry attempts (4)"
    assert result.exit_code == 0  # of a success, as seen live (retry-success): no rule has made a failure of it


def test_jump_repeats_from_there_and_a_success_has_its_tries_again() -> None:
    stub = StubTool()
    again = rules(
        {"when": "{{ ctx.n < 3 }}", "then": {"do": "jump", "to": "count"}},
        {"else": {"then": {"do": "continue"}}},
    )
    tasks = [
        {"name": "count", "kind": "stub", "say": "{{ _attempt }}", "set": {"ctx.n": "{{ (ctx.n | int) + 1 }}"}},
        {"name": "check", "kind": "stub", "say": "{{ ctx.n }}", "spec": again},
        {"name": "after", "kind": "stub", "say": "end"},
    ]
    result = go(tasks, stub=stub)
    assert [call.say for call in stub.calls] == [1, 1, 1, 2, 1, 3, "end"]
    assert python_form(result.data)["ctx"] == {"n": 3}


def test_jump_to_the_previous_task() -> None:
    stub = StubTool()
    once = {"do": "jump", "to": "previous", "set": {"ctx.went": True}}
    back = rules({"when": "{{ results.a == 1 and not ctx.went }}", "then": once})
    go([{"name": "a", "kind": "stub", "say": 1}, {"name": "b", "kind": "stub", "say": 2, "spec": back}], stub=stub)
    assert [call.say for call in stub.calls] == [1, 2, 1, 2]


def test_fail_makes_a_success_a_failure() -> None:
    result = go([{"name": "a", "kind": "stub", "say": 1, "spec": rules({"when": True, "then": {"do": "fail"}})}])
    assert result.error.message == "policy rule triggered fail for task[0] 'a'"
    assert result.exit_code == 1
    assert result.data["results"] == {"a": 1}


def test_endless_jump_is_ended() -> None:
    settings = tool_settings(NOETL_TASK_SEQUENCE_MAX_ITERATIONS="50")
    stub = StubTool()
    again = rules({"when": True, "then": {"do": "jump", "to": "a"}})
    result = go([{"name": "a", "kind": "stub", "say": 1, "spec": again}], stub=stub, settings=settings)
    assert len(stub.calls) == 50
    assert result.error.message.startswith("max_iterations_exceeded: 50 task executions")


def test_commands_timeout_ends_the_sequence_with_what_there_is() -> None:
    tasks = [
        {"name": "a", "kind": "stub", "say": 1},
        {"name": "b", "kind": "stub", "wait": 60, "spec": rules({"when": True, "then": "retry"})},
    ]
    result = go(tasks, timeout_s=0.5)
    assert result.status is ToolStatus.TIMEOUT
    assert result.data["results"]["a"] == 1
    assert result.data["failed_task"] == "b"


def test_delay_over_the_time_left_tells_the_failure_at_once() -> None:
    """It was slept away, and the command ended as a timeout without the cause."""
    retry = rules({"when": True, "then": {"do": "retry", "delay": 6000, "attempts": 9}})
    result = go([{"kind": "stub", "fail": True, "spec": retry}], timeout_s=2000.0)
    assert result.error.kind == "server_error"
    text = "planned (task 'task_0' is not tried again: its delay of 6000 s is over the "
    assert result.error.message.startswith(text)
