"""Configs that cannot work, of the kinds without a service behind them: what the author of a playbook reads."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.testing import call_tool, tool_context
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)


def refusal(kind: str, config: Any, **context: Any) -> str:
    """The error of `prepare`: nothing has been started when it comes."""
    with pytest.raises(ToolError) as caught:
        REGISTRY.prepare(kind, config, tool_context(registry=REGISTRY, **context))
    assert caught.value.kind in ("configuration", "template")
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"message": {"a": 1}}, "noop: field 'message' must be text, not dict"),
        ({"message": ["a"]}, "noop: field 'message' must be text, not list"),
        (
            {"message": "{{ a b }}"},
            "noop: field 'message': template '{{ a b }}': expected token 'end of print statement', got 'b'. "
            "Text that only looks like a template goes between {% raw %} and {% endraw %}",
        ),
        (
            {"result": "{{ 1 // 0 }}"},
            "noop: field 'result': template '{{ 1 // 0 }}': integer division or modulo by zero",
        ),
        (
            {"timeout": "soon"},
            "noop: timeout='soon' is not a time: give seconds above 0, or a text like 30s or 2m",
        ),
        (
            {"spec": {"timeout": {"total": -1}}},
            "noop: spec.timeout=-1 is not a time: give seconds above 0, or a text like 30s or 2m",
        ),
        (
            {"timeout_seconds": True},
            "noop: timeout_seconds=True is not a time: give seconds above 0, or a text like 30s or 2m",
        ),
    ],
)
def test_noop(config: dict[str, Any], message: str) -> None:
    assert refusal("noop", config) == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "playbook: 'path' or 'catalog_id' is missing"),
        ({"path": ""}, "playbook: 'path' or 'catalog_id' is missing"),
        ({"path": "{{ nothing }}"}, "playbook: 'path' or 'catalog_id' is missing"),
        ({"path": ["a"]}, "playbook: field 'path' must be text, not list"),
        ({"path": "a", "payload": "{}"}, "playbook: field 'payload' must be an object, not '{}' (str)"),
        ({"path": "a", "payload": [1]}, "playbook: field 'payload' must be an object, not list"),
        ({"path": "a", "input": 5}, "playbook: field 'input' must be an object, not '5' (int)"),
        (
            {"path": "a", "return_result": "perhaps"},
            "playbook: field 'return_result' must be true or false, not 'perhaps' (str)",
        ),
        (
            {"path": "a", "parent_execution_id": "mine"},
            "playbook: field 'parent_execution_id' must be a whole number, not 'mine' (str)",
        ),
        (
            {"path": "a", "poll_interval": "2s"},
            "playbook: field 'poll_interval' must be a number, not '2s' (str)",
        ),
        (
            {"paht": "a"},
            "playbook: 'path' or 'catalog_id' is missing (playbook: unknown field 'paht' is ignored; "
            "did you mean 'path'?)",
        ),
    ],
)
def test_playbook(config: dict[str, Any], message: str) -> None:
    assert refusal("playbook", config) == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "rhai: field 'code' (or script) is missing"),
        ({"code": "{{ code }}"}, "rhai: field 'code' is null: its template '{{ code }}' gives nothing"),
        ({"script": "{{ code }}"}, "rhai: field 'code' is null: its template '{{ code }}' gives nothing"),
        ({"code": ["1"]}, "rhai: field 'code' must be text, not list"),
        ({"code": "1", "args": [1]}, "rhai: field 'input' must be an object, not list"),
        ({"code": "1", "script": "2"}, "rhai: 'code' and 'script' are the same field with two values; keep one"),
        (
            {"code": "let a = #{b: #{c: 1}}; {{ a }"},
            "rhai: field 'code': template 'let a = #{b: #{c: 1}}; {{ a }': unexpected '}'. Text that only looks like a "
            "template goes between {% raw %} and {% endraw %}",
        ),
        (
            {"code": "1", "timeout": 0},
            "rhai: timeout=0 is not a time: give seconds above 0, or a text like 30s or 2m",
        ),
    ],
)
def test_rhai(config: dict[str, Any], message: str) -> None:
    assert refusal("rhai", config) == message


def task(**rule: Any) -> dict[str, Any]:
    return {"tasks": [{"name": "a", "kind": "noop", "spec": {"policy": {"rules": [rule]}}}]}


def action(**then: Any) -> dict[str, Any]:
    return task(when=True, then=then)


SEQUENCES: list[tuple[Any, str]] = [
    ({}, "task_sequence: field 'tasks' (or tool_config, tool) is missing"),
    ([], "task_sequence: there are no tasks"),
    ({"tasks": {"a": {"kind": "noop"}}}, "task_sequence: field 'tasks' must be a list, not dict"),
    (["noop"], "task_sequence: task[0] must be an object"),
    ([{"a": {"kind": "noop"}, "b": {}}], "task_sequence: task[0] must have exactly one labeled entry (got 2)"),
    ([{"name": "a"}], "task_sequence: task 'a' missing required 'kind' field"),
    ([{"a": {"message": "x"}}], "task_sequence: task 'a' missing required 'kind' field"),
    ([{"kind": 5}], "task_sequence: task 'task_0' missing required 'kind' field"),
    ([{"kind": "noop", "spec": "x"}], "task_sequence: task 'task_0': 'spec' must be an object, not str"),
    ([{"kind": "noop", "input": ["x"]}], "task_sequence: task 'task_0': 'input' must be an object, not list"),
    ([{"kind": "noop", "args": "x"}], "task_sequence: task 'task_0': 'args' must be an object, not str"),
    ([{"kind": "noop", "set": ["ctx.a"]}], "task_sequence: task 'task_0': 'set' must be an object, not list"),
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
def test_task_sequence(config: Any, message: str) -> None:
    said = refusal("task_sequence", config)
    assert said == (message if message.startswith("task_sequence: ") else f"task_sequence: {message}")


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
                "task 'a': rule 0: 'else' has no 'then': the default action is taken; write else: {then: {do: ...}}",
                "task 'a': rule 1: 'else' beside 'when' is ignored; make it a rule of its own",
            ],
        ),
        (
            [{"when": False, "then": {"do": "retry", "attempts": 1.5, "delay": "1s", "backoff": "quick"}}],
            [
                "task 'a': rule 0: 'attempts: 1.5' is no whole number: 3 are taken",
                "task 'a': rule 0: 'delay: 1s' is no number: 1 s is taken",
                "task 'a': rule 0: 'backoff: quick' is none of none, fixed, linear, exponential: fixed is taken",
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
def test_unknown_words_of_a_policy_are_reported_and_refused_where_strict(policy: Any, warnings: list[str]) -> None:
    config = {"tasks": [{"name": "a", "kind": "noop", "spec": {"policy": policy}}]}
    call = call_tool("task_sequence", config)
    assert call.succeeded
    assert [text.removeprefix("task_sequence: ") for text in call.warnings] == warnings
    strict = call_tool("task_sequence", config, registry=Registry(plugins=False, strict=True))
    assert strict.succeeded is not bool(warnings)


def test_unknown_fields_of_a_task_are_logged_and_refused_where_strict() -> None:
    config = {"tasks": [{"name": "a", "kind": "noop", "mesage": "x"}]}
    call = call_tool("task_sequence", config)
    problem = "noop: unknown field 'mesage' is ignored; did you mean 'message'?"
    assert call.log == (("warning", "tool_config", {"kind": "noop", "problem": problem}),)
    assert call_tool("task_sequence", config, registry=Registry(plugins=False, strict=True)).message == problem
