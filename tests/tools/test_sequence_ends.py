"""How a list of tasks ends: what it has printed, and whether what a task raised still fails it."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.models import Dialect, RaisedFailure, ToolStatus
from tool_settings import tool_settings
from tools.sequence_stub import ON_ERROR, go, rules

RAISES: dict[str, Any] = {"name": "a", "kind": "stub", "crash": "tool"}


@pytest.mark.parametrize("crash", ["tool", "other"])
@pytest.mark.parametrize("rule", [None, {"do": "fail"}, {"do": "retry", "attempts": 2}])
def test_list_that_ends_by_what_a_task_raised_says_so(crash: str, rule: Any) -> None:
    spec = {} if rule is None else {"spec": rules({"when": ON_ERROR, "then": rule})}
    ended = go([{**RAISES, "crash": crash, **spec}, {"name": "b", "kind": "stub", "say": 2}])
    assert ended.status is ToolStatus.ERROR
    assert isinstance(ended.error, RaisedFailure)


def test_template_of_a_rule_that_cannot_be_rendered_counts_as_raised() -> None:
    spec = rules({"else": {"then": {"set": {"ctx.x": "{{ 1 +"}}}})
    assert isinstance(go([{"name": "a", "kind": "stub", "say": 1, "spec": spec}]).error, RaisedFailure)


def test_what_an_inner_list_raised_has_been_raised_in_the_outer_one() -> None:
    inner = {"name": "in", "kind": "task_sequence", "tasks": [RAISES]}
    assert isinstance(go([inner]).error, RaisedFailure)


@pytest.mark.parametrize(
    "tasks",
    [
        [{"name": "a", "kind": "stub", "fail": True}],
        [{"name": "a", "kind": "stub", "say": 1, "spec": rules({"else": {"then": {"do": "fail"}}})}],
        [
            {**RAISES, "spec": rules({"when": ON_ERROR, "then": {"do": "continue"}})},
            {"name": "b", "kind": "stub", "fail": True},
        ],
    ],
    ids=["returned", "by-rule", "the-one-after"],
)
def test_failure_that_a_tool_returned_is_none_that_it_raised(tasks: list[dict[str, Any]]) -> None:
    """Recorded (error-in-sequence, policy-fail): the playbook goes on."""
    error = go(tasks).error
    assert error is not None
    assert not isinstance(error, RaisedFailure)


@pytest.mark.parametrize("dialect", Dialect)
def test_task_that_never_ran_is_in_no_result(dialect: Dialect) -> None:
    tasks = [{"name": "a", "kind": "stub", "say": 1}, {"name": "b", "kind": "stub", "say": 2}]
    ended = go(tasks, dialect=dialect, settings=tool_settings(NOETL_TASK_SEQUENCE_MAX_ITERATIONS="1"))
    assert (ended.status, ended.data["failed_task"], ended.data["results"]) == (ToolStatus.ERROR, "b", {"a": 1})


@pytest.mark.parametrize(("dialect", "kept"), [(Dialect.PYTHON, {}), (Dialect.RUST, {"b": {"said": 2}})])
def test_failed_task_that_was_to_run_again_has_no_data_of_another(dialect: Dialect, kept: dict[str, Any]) -> None:
    back = rules({"when": ON_ERROR, "then": {"do": "jump", "to": "a"}})
    tasks = [
        {"name": "a", "kind": "stub", "say": 1},
        {"name": "b", "kind": "stub", "say": 2, "fail": True, "spec": back},
    ]
    ended = go(tasks, dialect=dialect, settings=tool_settings(NOETL_TASK_SEQUENCE_MAX_ITERATIONS="3"))
    assert (ended.data["failed_task"], ended.data["results"]) == ("b", {"a": 1, **kept})
