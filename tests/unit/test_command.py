"""From a claim's answer to a command: every form in which a field arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from noetl_worker import template
from noetl_worker.command import hydrate
from noetl_worker.errors import ConfigurationError, ServerRefused
from noetl_worker.models import Command, Dialect, LoopPosition
from unit.planes import ENVELOPE, ScriptedTransport, answer, plane

REF = {"kind": "result_ref", "ref": "noetl://execution/7/result/start/1", "store": "kv"}


def claimed(context: Any, meta: Mapping[str, Any] | None = None, action: str = "python") -> dict[str, Any]:
    return {
        "status": "ok",
        "event_id": ENVELOPE.event_id,
        "execution_id": ENVELOPE.execution_id,
        "node_id": "start",
        "node_name": "start",
        "action": action,
        "context": context,
        "meta": meta or {},
    }


def made(
    body: Mapping[str, Any], dialect: Dialect = Dialect.PYTHON, stored: Mapping[str, Any] | None = None
) -> tuple[Command, ScriptedTransport]:
    def script(method: str, path: str, _: Any) -> Any:
        route, _, query = path.partition("?ref=")
        if route != "/api/result/resolve":
            return answer(404, {"detail": "Not Found"})
        from urllib.parse import unquote

        return answer(200, stored[unquote(query)]) if stored and unquote(query) in stored else answer(404, {})

    at, transport = plane(script, dialect)
    return asyncio.run(hydrate(body, ENVELOPE, at)), transport


def test_config_loses_null_place_holders_and_input_is_bound() -> None:
    config = {"code": "x", "spec": None, "output": None, "input": {"both": "tool", "only_tool": 1}}
    command, _ = made(claimed({"tool_config": config, "input": {"both": "step", "step_only": 2}, "render_context": {}}))
    assert command.config == {"code": "x"}
    assert command.input == {"both": "tool", "only_tool": 1, "step_only": 2}


def test_args_are_the_fallback_of_input_on_the_rust_plane() -> None:
    context = {"args": {}, "tool_config": {"args": {"n": 1}, "code": "x"}, "render_context": {"a": 1}}
    command, _ = made(claimed(context), Dialect.RUST)
    assert command.input == {"n": 1}
    assert command.variables == {"a": 1, "action": "python", "node_name": "start"}


@pytest.mark.parametrize("empty", [None, {}, ""], ids=str)
def test_missing_context_fields_are_empty_and_not_an_error(empty: Any) -> None:
    context = {"tool_config": empty or None, "input": None, "args": None, "render_context": None}
    command, _ = made(claimed(context))
    assert (command.config, command.input) == ({}, {})


def test_list_config_is_a_task_sequence() -> None:
    command, _ = made(claimed({"tool_config": [{"first": {"kind": "noop"}}]}, action="task_sequence"), Dialect.RUST)
    assert command.config == {"tasks": [{"first": {"kind": "noop"}}]}


def test_reference_fields_are_resolved_each_by_itself() -> None:
    context = {"tool_config": {**REF, "ref": "noetl://c"}, "input": {**REF, "kind": "temp_ref", "ref": "noetl://i"}}
    stored = {"noetl://c": {"code": "x"}, "noetl://i": {"n": 1}}
    command, _ = made(claimed(context), stored=stored)
    assert (command.config, command.input) == ({"code": "x"}, {"n": 1})


def test_whole_context_may_be_a_reference() -> None:
    command, _ = made(claimed(REF), stored={REF["ref"]: {"tool_config": {"code": "y"}}})
    assert command.config == {"code": "y"}


def test_json_text_fields_are_parsed() -> None:
    context = {"tool_config": json.dumps({"code": "x"}), "input": '{"n":1}', "render_context": '{"w":2}'}
    command, _ = made(claimed(context))
    assert (command.config, command.input, command.variables["w"]) == ({"code": "x"}, {"n": 1}, 2)


def test_doubled_prefix_of_the_result_route_is_tried_once() -> None:
    def script(method: str, path: str, _: Any) -> Any:
        return answer(200, {"code": "x"}) if path.startswith("/api/api/result/resolve") else answer(404, {})

    at, transport = plane(script)
    command = asyncio.run(hydrate(claimed({"tool_config": REF}), ENVELOPE, at))
    assert command.config == {"code": "x"}
    assert [path.partition("?")[0] for _, path, _, _ in transport.sent] == [
        "/api/result/resolve",
        "/api/api/result/resolve",
    ]


def test_reference_that_is_gone_names_itself() -> None:
    with pytest.raises(ServerRefused, match="noetl://execution/7/result/start/1"):
        made(claimed({"tool_config": REF}))


def test_endless_reference_chain_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="reference to a reference"):
        made(claimed({"tool_config": REF}), stored={REF["ref"]: REF})


@pytest.mark.parametrize("field", ["tool_config", "input", "render_context"])
def test_field_of_a_form_no_plane_sends_is_named(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} is int"):
        made(claimed({field: 5}))
    with pytest.raises(ConfigurationError, match="not JSON"):
        made(claimed({field: "{broken"}))


def test_loop_bookkeeping_is_kept_for_the_events_and_hidden_from_the_tool() -> None:
    context = {"input": {"__loop_epoch_id": "e", "__loop_claimed_index": 0, "name": "ant"}, "tool_config": {}}
    meta = {"loop_event_id": "e", "__loop_epoch_id": "e", "loop_iteration_index": 0, "command_id": 5}
    command, _ = made(claimed(context, meta))
    assert command.input == {"name": "ant"}
    assert command.loop == LoopPosition("e", 0, "e")


def test_case_is_another_spelling_of_cases() -> None:
    cases = [{"when": [], "then": "continue"}]
    in_config, _ = made(claimed({"tool_config": {"case": cases, "code": "x"}}))
    in_context, _ = made(claimed({"tool_config": {"code": "x"}, "case": cases}))
    assert in_config.cases == in_context.cases == cases
    assert in_config.config == {"code": "x"}


def test_cases_come_from_the_context_or_from_the_tools_config() -> None:
    cases = [{"when": [], "then": "continue"}]
    in_config, _ = made(claimed({"tool_config": {"cases": cases, "code": "x"}}))
    in_context, _ = made(claimed({"tool_config": {"code": "x"}, "cases": cases}))
    assert in_config.cases == in_context.cases == cases
    assert in_config.config == {"code": "x"}


def test_command_id_of_the_notification_is_kept_in_its_form_unless_meta_names_another() -> None:
    same, _ = made(claimed({}, {"command_id": ENVELOPE.command_id}))
    other, _ = made(claimed({}, {"command_id": "7:start:9"}))
    none, _ = made(claimed({}))
    assert (same.command_id, other.command_id, none.command_id) == (
        ENVELOPE.command_id,
        "7:start:9",
        ENVELOPE.command_id,
    )


def test_attempt_is_read_from_both_spellings() -> None:
    assert made(claimed({}, {"attempt": 2}))[0].attempt == 2
    assert made(claimed({}, {"attempts": 3}))[0].attempt == 3
    assert made(claimed({}, {"attempt": True}))[0].attempt == 1


# ── who renders the input ──


def marked(value: Any) -> Iterator[str]:
    """The texts with template marks in a value."""
    if isinstance(value, str):
        yield from [value] if template.has_template(value) else []
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from marked(one)


def recorded_commands() -> Iterator[tuple[str, dict[str, Any]]]:
    """(action, context) of every claim in the recordings."""
    for path in sorted((Path(__file__).parents[1] / "compat" / "samples").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line).get("resp")
            if isinstance(found, dict) and isinstance(found.get("context"), dict) and "action" in found:
                yield found["action"], found["context"]


def test_what_a_plane_leaves_in_braces_in_an_input_has_no_value_here_either() -> None:
    """Both planes render a step's input: Dispatch does not do it again, values put in are never scanned.

    What is still in braces is what the plane had no value for (nor has the worker, which sees the same variables), or
    a value of the playbook that has braces in it.
    """
    left: list[str] = []
    for action, context in recorded_commands():
        config, variables = context.get("tool_config"), context.get("render_context")
        own = [config.get("input"), config.get("args")] if isinstance(config, dict) else []
        known = variables if isinstance(variables, dict) else {}
        for text in marked([context.get("input"), context.get("args"), *own]):
            left.append(text)
            held = json.dumps(text)[1:-1] in json.dumps([known.get("workload"), known.get("ctx")])
            is_a_field = action == "python"  # there the registry renders it, like any field of a kind
            assert template.render(text, known) in (None, text) or held or is_a_field, text
    assert len(left) > 10
