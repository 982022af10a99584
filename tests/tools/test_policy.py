"""Policy rules of a task sequence, as a whole (protocol/tasks.md#policies)."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

import virtual_time
from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.testing import RecordedLogger, arun_tool
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry
from tools.sequence_stub import ON_ERROR, StubConfig, StubTool, go, rules


@pytest.mark.parametrize("verb", ["continue", "break", "fail", "jump", "retry"])
def test_set_of_a_rule_is_applied_before_every_verb(verb: str) -> None:
    assigned = {"ctx.seen": "{{ output.data.v }}", "iter.n": "{{ _attempt }}", "plain": "{{ output.status }}"}
    assigned["ctx.kept"] = {"a": None, "b": "{{ 1 + 1 }}"}
    action = {"do": verb, "to": "last", "attempts": 2, "set": assigned}
    tasks = [
        {"name": "a", "kind": "stub", "say": {"v": 7}, "spec": rules({"when": "{{ not ctx.seen }}", "then": action})},
        {"name": "last", "kind": "stub", "say": "{{ [ctx.seen, iter.n, plain] }}"},
    ]
    data = go(tasks).data
    *first, last = data["updates"].items()
    assert first == [("ctx.seen", 7), ("iter.n", 1), ("plain", "success")]
    assert last == ("ctx.kept", {"a": None, "b": 2}), "trap 17 of upstream: a null takes nothing from its object"
    if verb in ("continue", "jump", "retry"):
        assert data["results"]["last"] == [7, 1, "success"]
    assert data["status"] == {"break": "break", "fail": "failed"}.get(verb, "ok")


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (None, "failed"),
        ({}, "ok"),
        ({"set": {"ctx.a": 1}}, "ok"),
        ("continue", "ok"),
        ("BREAK", "break"),
        ({"do": " Fail "}, "failed"),
    ],
)
def test_action_without_a_verb_continues_and_no_action_is_the_default_one(then: Any, expected: str) -> None:
    tasks = [{"kind": "stub", "fail": True, "spec": rules({"when": True, "then": then})}]
    assert go(tasks).data["status"] == expected


@pytest.mark.parametrize(("dialect", "ran"), [(Dialect.RUST, 2), (Dialect.PYTHON, 1)])
def test_action_without_when_and_else_never_holds_on_the_rust_plane_and_says_so(dialect: Dialect, ran: int) -> None:
    """Seen live (policy-no-when); of the Python plane's worker the source says it (protocol/tasks.md#policies)."""
    stub, log = StubTool(), RecordedLogger()
    bare = {"name": "a", "kind": "stub", "say": 1, "spec": rules({"then": {"do": "break"}})}
    go([bare, {"kind": "stub", "say": 2}], stub=stub, dialect=dialect, logger=log)
    assert len(stub.calls) == ran
    text = "rule 0 has neither 'when' nor 'else': on this control plane it never holds"
    assert [fields["problem"] for _, _, fields in log.records] == [text] * (ran - 1)


@pytest.mark.parametrize("rule", [{"else": {"do": "fail"}}, {"else": "fail"}, {"else": None, "then": "fail"}])
def test_else_without_a_then_ends_the_rules_with_the_default_action(rule: dict[str, Any]) -> None:
    """Seen live (policy-no-when)."""
    later = {"when": True, "then": {"do": "fail"}}
    assert go([{"kind": "stub", "say": 1, "spec": rules(rule, later)}]).status is ToolStatus.SUCCESS
    assert go([{"kind": "stub", "fail": True, "spec": rules(rule)}]).status is ToolStatus.ERROR


@pytest.mark.parametrize(
    ("attempts", "calls"), [*((one, 3) for one in ("{{ workload.n }}", "many", 3.5, True, -1, None)), ("0", 1)]
)
def test_attempts_that_are_no_count_are_the_default_and_none_are_one(attempts: Any, calls: int) -> None:
    """Seen live (policy-numbers), but for the last."""
    stub = StubTool()
    retry = rules({"when": ON_ERROR, "then": {"do": "retry", "attempts": attempts}})
    result = go([{"kind": "stub", "fail": True, "spec": retry}], stub=stub, variables={"workload": {"n": 5}})
    assert (result.status, len(stub.calls)) == (ToolStatus.ERROR, calls)


@pytest.mark.parametrize("action", [{"to": "nowhere"}, {"to": 5}, {}, {"to": "previous"}])
def test_jump_to_nowhere_fails_when_its_rule_holds_and_not_before(action: dict[str, Any]) -> None:
    """Seen live (policy-jump-nowhere, policy-jump-before)."""
    jump = {"do": "jump", **action}
    never = {"name": "a", "kind": "stub", "say": 1, "spec": rules({"when": False, "then": jump})}
    assert go([never]).status is ToolStatus.SUCCESS
    result = go([{**never, "spec": rules({"when": True, "then": jump})}, {"name": "b", "kind": "stub"}])
    assert (result.error.kind, result.data["failed_index"], result.exit_code) == ("policy", 0, 1)
    to = action["to"] if isinstance(action.get("to"), str) else None
    assert result.error.message == f"task_sequence: jump target {to!r} of task 'a' not found"


def test_policy_may_be_a_list_and_may_stand_beside_the_tools_fields() -> None:
    policy = {"policy": [{"when": True, "then": "break"}]}
    for task in (policy, {"spec": policy}):
        assert go([{"kind": "stub", "say": 1, **task}, {"kind": "stub", "fail": True}]).data["status"] == "break"


def test_task_without_a_rule_that_holds_continues_on_success_and_fails_otherwise() -> None:
    never = rules({"when": False, "then": "break"})
    assert go([{"kind": "stub", "say": 1, "spec": never}]).data["status"] == "ok"
    assert go([{"kind": "stub", "fail": True, "spec": never}]).data["status"] == "failed"


def test_timeout_of_one_task_is_a_failure_for_its_rules_and_for_the_default() -> None:
    late = {"name": "a", "kind": "stub", "wait": 0.01}
    assert go([late]).data["status"] == "failed"
    seen = rules({"when": "{{ output.status == 'timeout' and output.error.kind == 'timeout' }}", "then": "continue"})
    assert go([{**late, "spec": seen}]).data["status"] == "ok"


def test_what_a_rule_sets_is_data_even_if_it_looks_like_a_template() -> None:
    sly = "{{ 1 // 0 }}"
    keeps = rules({"when": "{{ output.data == sly }}", "then": {"set": {"ctx.kept": "{{ output.data }}"}}})
    tasks = [
        {"kind": "stub", "say": "{{ sly }}", "spec": keeps},
        {"kind": "stub", "say": "{{ ctx.kept }}", "spec": rules({"when": "{{ ctx.kept != sly }}", "then": "fail"})},
    ]
    result = go(tasks, variables={"sly": sly})
    assert result.data["results"] == {"task_0": sly, "task_1": sly}


def test_failing_set_of_a_rule_ends_the_sequence_and_says_where() -> None:
    broken = rules({"when": True, "then": {"set": {"ctx.a": "{{ 1 // 0 }}"}}})
    result = go([{"name": "a", "kind": "stub", "say": 1, "spec": broken}])
    assert (result.error.kind, result.error.message.startswith("task 'a': template ")) == ("template", True)


@virtual_time.PASSES
@pytest.mark.parametrize(
    ("then", "waits"),
    [
        ({"backoff": "exponential", "delay": 2}, [2, 4]),
        ({"delay": 2}, [2, 2]),
        ({"backoff": "linear"}, [1, 2]),
        ({"backoff": "none"}, [0, 0]),
    ],
)
async def test_each_retry_waits_as_the_backoff_says(then: dict[str, Any], waits: list[float]) -> None:
    tried: list[float] = []

    class Timed(StubTool):
        async def run(self, config: StubConfig, context: ToolContext) -> ToolResult:
            tried.append(time.monotonic())
            return await super().run(config, context)

    failing = {"kind": "stub", "fail": True, "spec": rules({"when": True, "then": {"do": "retry", **then}})}
    await arun_tool("task_sequence", [failing], registry=Registry([Timed()], plugins=False))
    assert [later - before for before, later in pairwise(tried)] == waits
