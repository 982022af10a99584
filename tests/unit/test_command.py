"""From a claim's answer to a command: every form in which a field arrives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from noetl_worker.errors import ConfigurationError, ServerRefused
from noetl_worker.models import Command, Dialect, LoopPosition
from noetl_worker.models.marks import ALL, Marks
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.text import json_text
from noetl_worker.text.templates import template
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


async def made(
    body: Mapping[str, Any], dialect: Dialect = Dialect.PYTHON, stored: Mapping[str, Any] | None = None
) -> tuple[Command, ScriptedTransport]:
    def script(method: str, path: str, _: Any) -> Any:
        route, _, query = path.partition("?ref=")
        if route != "/api/result/resolve":
            return answer(404, {"detail": "Not Found"})
        if query == "where":
            return answer(200, query)
        found = (stored or {}).get(unquote(query))
        return answer(200, found) if found is not None else answer(404, {})

    at, transport = plane(script, dialect)
    return await hydrate(body, ENVELOPE, at), transport


async def test_config_loses_null_place_holders_and_input_is_bound() -> None:
    config = {"code": "x", "spec": None, "output": None, "input": {"both": "tool", "only_tool": 1}}
    context = {"tool_config": config, "input": {"both": "step", "step_only": 2}, "render_context": {}}
    command, _ = await made(claimed(context))
    assert command.config == {"code": "x"}
    assert command.input == {"both": "step", "only_tool": 1, "step_only": 2}


async def test_args_are_the_fallback_of_input_on_the_rust_plane() -> None:
    context = {"args": {}, "tool_config": {"args": {"n": 1}, "code": "x"}, "render_context": {"a": 1}}
    command, _ = await made(claimed(context), Dialect.RUST)
    assert command.input == {"n": 1}
    flat = {"a": 1}
    assert command.variables == {"a": 1, "ctx": flat, "workload": flat, "action": "python", "node_name": "start"}


async def test_python_planes_earlier_step_is_looked_through_to_its_whole_result() -> None:
    whole = {"a": 1, "rows": [1, 2], "data": {"x": 5}}
    mine = {"name": "n", "context": {"other": 1}}
    names = {"s": {"a": 1, "context": whole}, "mine": mine, "ctx": {"context": {"other": 1}}}
    command, _ = await made(claimed({"render_context": names}))
    asked = [
        "{{ s.rows[1] }}",
        "{{ s['rows'] | length }}",
        "{{ s.data.x }}",
        "{{ s.data.a }}",
        "{{ s.nope is defined }}",
    ]
    assert [template.render(text, command.variables) for text in asked] == [2, 2, 5, 1, False]
    assert template.render("{{ s }}", command.variables) == names["s"]  # what is not named stays as it came
    assert json.loads(json_text.dumps(command.variables["s"])) == names["s"]
    assert template.render("{{ mine.other is defined or ctx.other is defined }}", command.variables) is False


async def test_python_plane_has_a_ctx_of_its_own() -> None:
    command, _ = await made(claimed({"render_context": {"ctx": {"x": 1}, "n": 2}}))
    assert command.variables["ctx"] == {"x": 1}


@pytest.mark.parametrize("empty", [None, {}, ""], ids=str)
async def test_missing_context_fields_are_empty_and_not_an_error(empty: Any) -> None:
    context = {"tool_config": empty or None, "input": None, "args": None, "render_context": None}
    command, _ = await made(claimed(context))
    assert (command.config, command.input) == ({}, {})


async def test_tools_own_input_wins_on_the_rust_plane() -> None:
    context = {"args": {"both": "step", "s": 1}, "tool_config": {"args": {"both": "tool"}}}
    command, _ = await made(claimed(context), Dialect.RUST)
    assert command.input == {"both": "tool", "s": 1}


async def test_text_of_a_value_that_looks_like_a_template_stays_text_in_a_rendered_config() -> None:
    names = {"workload": {"c": "{% if x %}", "whole": "{{ 1 + 1 }}", "n": 3}, "start": {"deep": ["{{ oops"]}}
    config = {
        "same": "{% if x %}",
        "inside": "a {{ 1 + 1 }} b",
        "open": "c {{ oops",
        "deep": [{"d": "{{ 1 + 1 }}"}],
        "authors": "{{ workload.n }}",
        "mixed": "{{ 1 + 1 }} {{ workload.n }}",
    }
    whole = {**config, "input": {"i": "{{ 1 + 1 }}"}}
    for dialect in Dialect:
        command, _ = await made(claimed({"tool_config": whole, "render_context": names}), dialect)
        rendered = template.render(dict(command.config), command.variables)
        assert rendered == {**config, "authors": 3, "mixed": "2 3"}
        assert template.render(dict(command.input), command.variables) == {"i": "{{ 1 + 1 }}"}


async def test_tasks_of_a_list_are_as_their_author_wrote_them() -> None:
    """The plane has not rendered them: a text in the workload that is the same means nothing."""
    task = {"name": "a", "kind": "noop", "result": "{{ 1 + 1 }}"}
    context = {"tool_config": {"tasks": [task]}, "render_context": {"workload": {"t": "{{ 1 + 1 }}"}}}
    command, _ = await made(claimed(context, action="task_sequence"))
    assert template.render(command.config["tasks"][0]["result"], {}) == 2


async def test_list_config_is_a_task_sequence() -> None:
    tasks = [{"first": {"kind": "noop"}}]
    command, _ = await made(claimed({"tool_config": tasks}, action="task_sequence"), Dialect.RUST)
    assert command.config == {"tasks": tasks}


async def test_reference_fields_are_resolved_each_by_itself() -> None:
    context = {"tool_config": {**REF, "ref": "noetl://c"}, "input": {**REF, "kind": "temp_ref", "ref": "noetl://i"}}
    stored = {"noetl://c": {"code": "x"}, "noetl://i": {"n": 1}}
    command, _ = await made(claimed(context), stored=stored)
    assert (command.config, command.input) == ({"code": "x"}, {"n": 1})


async def test_whole_context_may_be_a_reference() -> None:
    command, _ = await made(claimed(REF), stored={REF["ref"]: {"tool_config": {"code": "y"}}})
    assert command.config == {"code": "y"}


@pytest.mark.parametrize("marks", [ALL, Marks(templates=False, references=False, secrets=False)])
async def test_context_that_the_rust_plane_could_not_fetch_from_its_store_is_fetched(marks: Marks) -> None:
    context = {"__context_ref__": "noetl://c", "__context_bytes__": 600_000}
    at, _ = plane(lambda *_: answer(200, {"tool_config": {"code": "y"}}), Dialect.RUST)
    command = await hydrate(claimed(context), ENVELOPE, at, marks=marks)
    assert command.config == {"code": "y"}
    gone, _ = plane(lambda *_: answer(404, {"error": "not found", "status": 404}), Dialect.RUST)
    with pytest.raises(ServerRefused, match="noetl://c"):
        await hydrate(claimed(context), ENVELOPE, gone, marks=marks)


async def test_json_text_fields_are_parsed() -> None:
    context = {"tool_config": json.dumps({"code": "x"}), "input": '{"n":1}', "render_context": '{"w":2}'}
    command, _ = await made(claimed(context))
    assert (command.config, command.input, command.variables["w"]) == ({"code": "x"}, {"n": 1}, 2)


async def test_reference_that_is_gone_names_itself() -> None:
    with pytest.raises(ServerRefused, match="noetl://execution/7/result/start/1"):
        await made(claimed({"tool_config": REF}))


async def test_endless_reference_chain_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="chain of 4 or more references or JSON strings"):
        await made(claimed({"tool_config": REF}), stored={REF["ref"]: REF})


@pytest.mark.parametrize("field", ["tool_config", "input", "render_context"])
async def test_field_of_a_form_no_plane_sends_is_named(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be an object( or a list)?, not int"):
        await made(claimed({field: 5}))
    with pytest.raises(ConfigurationError, match="not JSON"):
        await made(claimed({field: "{broken"}))


async def test_loop_bookkeeping_is_kept_for_the_events_and_hidden_from_the_tool() -> None:
    context = {"input": {"__loop_epoch_id": "e", "__loop_claimed_index": 0, "name": "ant"}, "tool_config": {}}
    meta = {"loop_event_id": "e", "__loop_epoch_id": "e", "loop_iteration_index": 0, "command_id": 5}
    command, _ = await made(claimed(context, meta))
    assert command.input == {"name": "ant"}
    assert command.loop == LoopPosition("e", 0, "e")


@pytest.mark.parametrize("spelling", ["cases", "case"])
async def test_cases_come_from_the_context_or_from_the_tools_config(spelling: str) -> None:
    cases = [{"when": [], "then": "continue"}]
    in_config, _ = await made(claimed({"tool_config": {spelling: cases, "code": "x"}}))
    in_context, _ = await made(claimed({"tool_config": {"code": "x"}, spelling: cases}))
    assert in_config.cases == in_context.cases == cases
    assert in_config.config == {"code": "x"}


async def test_command_id_of_the_notification_is_kept_unless_meta_names_another() -> None:
    notified = ENVELOPE.command_id
    for meta, known in (
        ({"command_id": notified}, notified),
        ({"command_id": "7:start:9"}, "7:start:9"),
        ({}, notified),
    ):
        assert (await made(claimed({}, meta)))[0].command_id == known


async def test_attempt_is_read_from_both_spellings() -> None:
    assert (await made(claimed({}, {"attempt": 2})))[0].attempt == 2
    assert (await made(claimed({}, {"attempts": 3})))[0].attempt == 3
    assert (await made(claimed({}, {"attempt": True})))[0].attempt == 1


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
