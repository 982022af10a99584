"""Configs that cannot work, of the kinds without a service behind them: what the author of a playbook reads."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.testing import call_tool, tool_context
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)


def task(**rule: Any) -> dict[str, Any]:
    return {"tasks": [{"name": "a", "kind": "noop", "spec": {"policy": {"rules": [rule]}}}]}


def action(**then: Any) -> dict[str, Any]:
    return task(when=True, then=then)


SEQUENCES: list[tuple[Any, str]] = [
    ({}, "field 'tasks' (or tool_config, tool) is missing"),
    ([], "there are no tasks; give one"),
    ({"tasks": {"a": {"kind": "noop"}}}, "field 'tasks' must be a list, not dict"),
    (["noop"], "task[0] must be an object"),
    ([{"a": {"kind": "noop"}, "b": {}}], "task[0] must have exactly one labeled entry: {label: {kind: ...}} (got 2)"),
    ([{"name": "a"}], "task 'a' missing required 'kind' field"),
    ([{"a": {"message": "x"}}], "task 'a' missing required 'kind' field"),
    ([{"kind": 5}], "task 'task_0' missing required 'kind' field"),
    ([{"kind": "noop", "spec": "x"}], "task 'task_0': 'spec' must be an object, not str"),
    ([{"kind": "noop", "input": ["x"]}], "task 'task_0': 'input' must be an object, not list"),
    ([{"kind": "noop", "args": "x"}], "task 'task_0': 'args' must be an object, not str"),
    ([{"kind": "noop", "set": ["ctx.a"]}], "task 'task_0': 'set' must be an object, not list"),
    (
        [{"kind": "noop", "spec": {"policy": "retry"}}],
        "task 'task_0': policy must be an object with 'rules', or a list of rules",
    ),
    (
        [{"kind": "noop", "spec": {"policy": {"rules": ["retry"]}}}],
        "task 'task_0': rule 0 must be an object with 'when' and 'then', or 'else'",
    ),
    (task(), "task 'a': rule 0 has neither 'when' nor 'else'"),
    (task(expr="x"), "task 'a': rule 0: 'expr' is not supported; use 'when', 'then' and 'set'"),
    (action(set_ctx={"a": 1}), "task 'a': rule 0: 'set_ctx' is not supported; use 'when', 'then' and 'set'"),
    (
        task(when="output.ok", then="break"),
        "task 'a': rule 0: 'when: output.ok' is no template; write it as {{ ... }}",
    ),
    (task(when=True, then=5), "task 'a': rule 0: 'then' must be an object like {do: retry, attempts: 3}"),
    (action(do="retyr"), "task 'a': rule 0: 'do: retyr' is none of continue, retry, break, jump, fail"),
    (action(set=["ctx.a"]), "task 'a': rule 0: 'set' must be an object"),
    (
        {"tasks": [{"name": "a", "kind": "noop", "spec": {"policy": {"on_unmatched": "stop"}}}]},
        "task 'a': on_unmatched: 'do: stop' is none of continue, retry, break, jump, fail",
    ),
]


@pytest.mark.parametrize(("config", "message"), SEQUENCES, ids=[message for _, message in SEQUENCES])
def test_sequence_that_cannot_work_is_refused_before_it_starts(config: Any, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        REGISTRY.prepare("task_sequence", config, tool_context(registry=REGISTRY))
    assert caught.value.kind in ("configuration", "template")
    assert str(caught.value) == f"task_sequence: {message}"


@pytest.mark.parametrize(
    ("policy", "warnings"),
    [
        ({"rules": [], "ruels": [1]}, ["task 'a': policy: 'ruels' is ignored; did you mean 'rules'?"]),
        ([{"when": True, "wehn": 1}], ["task 'a': rule 0: 'wehn' is ignored; did you mean 'when'?"]),
        (
            [{"when": False, "then": {"do": "retry", "attemps": 3}}],
            ["task 'a': rule 0: 'attemps' is ignored; did you mean 'attempts'?"],
        ),
        ([{"else": {"then": {"dely": 3}}}], ["task 'a': rule 0: 'dely' is ignored; did you mean 'delay'?"]),
        (
            [{"else": {"do": "fail"}}, {"when": True, "else": {"then": "fail"}}],
            [
                "task 'a': rule 0: 'else' has no 'then': the default action is used; write else: {then: {do: ...}}",
                "task 'a': rule 1: 'else' beside 'when' is ignored; make it a rule of its own",
            ],
        ),
        (
            [{"when": False, "then": {"do": "retry", "attempts": 1.5, "delay": "1s", "backoff": "quick"}}],
            [
                "task 'a': rule 0: 'attempts: 1.5' is no whole number: 3 is used",
                "task 'a': rule 0: 'delay: 1s' is no number: 1 s is used",
                "task 'a': rule 0: 'backoff: quick' is none of none, fixed, linear, exponential: fixed is used",
            ],
        ),
        (
            [{"when": False, "then": {"do": "jump", "to": to}} for to in ("a", "b", "previous")],
            ["jump target 'b' of task 'a' not found", "jump target 'previous' of task 'a' not found"],
        ),
        ({"before": None, "rules": [{"when": True, "then": None, "name": "n"}]}, []),
        (
            {"mode": "exclusive", "before": [1], "after": [1], "rules": []},
            [f"task 'a': policy: '{word}' is ignored" for word in ("mode", "before", "after")],
        ),
    ],
)
def test_unknown_words_of_a_policy_are_reported(policy: Any, warnings: list[str]) -> None:
    config = {"tasks": [{"name": "a", "kind": "noop", "spec": {"policy": policy}}]}
    call = call_tool("task_sequence", config)
    assert call.succeeded
    assert [text.removeprefix("task_sequence: ") for text in call.warnings] == warnings


def test_unknown_fields_of_a_task_are_logged() -> None:
    config = {"tasks": [{"name": "a", "kind": "noop", "mesage": "x"}]}
    call = call_tool("task_sequence", config)
    problem = "noop: unknown field 'mesage' is ignored; did you mean 'message'?"
    advice = "correct the field of that step which `problem` names"
    assert call.log == (("warning", "tool_config", {"kind": "noop", "problem": problem, "advice": advice}),)
