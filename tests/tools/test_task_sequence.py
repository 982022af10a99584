"""Kind `task_sequence`: order, references, what is refused, both planes' forms, stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import virtual_time
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools.contract import Stop, ToolContext
from noetl_worker.tools.kinds.task_sequence.task_sequence import python_form, rust_form
from noetl_worker.tools.registry import Registry
from tools.sequence_stub import ON_ERROR, StubConfig, StubTool, go, rules

# ── forms and references ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tasks",
    [
        {"tasks": [{"name": "a", "kind": "stub", "say": 1}, {"name": "b", "kind": "stub", "say": "{{ a + 1 }}"}]},
        {
            "tool_config": [
                {"a": {"kind": "stub", "say": 1}},
                {"b": {"kind": "stub", "name": "b", "say": "{{ a + 1 }}"}},
            ]
        },
        [{"a": {"kind": "stub", "say": 1}}, {"b": {"kind": "stub", "say": "{{ a + 1 }}"}}],
    ],
)
def test_every_wire_form_runs_in_order(tasks: Any) -> None:
    result = go(tasks)
    assert result.status is ToolStatus.SUCCESS
    assert result.data["results"] == {"a": 1, "b": 2}


def test_planes_forms_of_a_success() -> None:
    sets = rules({"else": {"then": {"set": {"ctx.made": "{{ output.data.value }}"}}}})
    data = go([{"name": "make", "kind": "stub", "say": {"value": 5}, "spec": sets}]).data
    assert python_form(data) == {
        "status": "ok", "_prev": {"value": 5}, "results": {"make": {"value": 5}}, "ctx": {"made": 5},
    }  # fmt: skip
    assert rust_form(data) == {"make": {"value": 5}, "_context_updates": {"ctx.made": 5}}


def test_planes_forms_of_a_failure() -> None:
    data = go([{"name": "a", "kind": "stub", "say": 1}, {"name": "b", "kind": "stub", "say": 2, "fail": True}]).data
    python = python_form(data)
    assert (python["status"], python["failed_task"], python["error"]["message"]) == ("failed", "b", "planned")
    assert rust_form(data) == {"labeled_results": {"a": 1, "b": {"said": 2}}, "failed_task": 1}


def test_input_is_rendered_before_any_of_its_own_names_count() -> None:
    stub = StubTool()
    go([{"kind": "stub", "args": {"x": "{{ y }}", "y": "{{ x }}"}}], stub=stub, variables={"x": 1, "y": 2})
    assert stub.calls[0].input == {"x": 2, "y": 1}


def test_values_that_look_like_templates_stay_data() -> None:
    stub = StubTool()
    sly = "{{ 1 // 0 }} {% raw %}"
    result = go(
        [
            {"name": "a", "kind": "stub", "say": "{{ sly }}", "set": {"ctx.kept": "{{ output }}"}},
            {"name": "b", "kind": "stub", "say": "{{ a }}{{ ctx.kept }}", "input": {"v": "{{ _prev }}"}},
        ],
        stub=stub,
        variables={"sly": sly},
    )
    assert result.data["results"] == {"a": sly, "b": sly + sly}
    assert stub.calls[1].input == {"v": sly}
    assert result.data["updates"] == {"ctx.kept": sly}


def test_unnamed_tasks_are_numbered_and_a_tools_own_name_is_kept() -> None:
    stub = StubTool()
    result = go([{"kind": "stub", "say": 1}, {"label": {"kind": "stub", "name": "own", "say": 2}}], stub=stub)
    assert list(result.data["results"]) == ["task_0", "label"]
    assert [call.name for call in stub.calls] == [None, "own"]


def test_callers_variables_are_not_changed() -> None:
    variables: dict[str, Any] = {"ctx": {"deep": {"a": 1}}}
    result = go(
        [{"kind": "stub", "say": 1, "set": {"ctx.deep.b": 2, "ctx.c": 3, "iter.i": 4, "plain": 5}}], variables=variables
    )
    assert variables == {"ctx": {"deep": {"a": 1}}}
    assert python_form(result.data)["ctx"] == {"deep": {"a": 1, "b": 2}, "c": 3}


def test_set_reads_raw_data_and_outcome() -> None:
    assignments = {
        "ctx.a": "{{ output.v }}",
        "ctx.b": "{{ output.data.v }}",
        "ctx.c": "{{ output }}",
        "ctx.d": "{{ output.status }}",
    }
    result = go([{"kind": "stub", "say": {"v": 1}, "set": assignments}])
    assert python_form(result.data)["ctx"] == {"a": 1, "b": 1, "c": {"v": 1}, "d": "success"}


def test_set_is_seen_by_the_next_task_under_its_scope() -> None:
    stub = StubTool()
    scopes = {"ctx.x": "{{ output }}", "iter.y": "{{ output + 1 }}", "z": "{{ output + 2 }}"}
    tasks = [
        {"kind": "stub", "say": 7, "set": scopes},
        {"kind": "stub", "say": "{{ [ctx.x, ctx.old, iter.y, z] }}"},
    ]
    go(tasks, stub=stub, variables={"ctx": {"old": "o"}})
    assert stub.calls[1].say == [7, "o", 8, 9]


# ── what is written inside of it ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ArgvConfig:
    args: list[str] | None = None


class ArgvTool:
    """As the container kind: `args` is a field of its own."""

    kind: ClassVar[str] = "argv"
    config_model: ClassVar[type] = ArgvConfig

    async def run(self, config: ArgvConfig, context: ToolContext) -> ToolResult:
        return ToolResult.success({"argv": list(config.args or []), "input": dict(context.values.input)})


@pytest.mark.parametrize("args", [["a", "x"], ["a", "{{ n }}"], "{{ whole }}"])
def test_args_are_the_tools_where_it_has_this_field(args: Any) -> None:
    """Refused as 'must be an object', or taken for the input."""
    task = {"name": "t", "kind": "argv", "args": args, "input": {"n": "x"}}
    registry = Registry([ArgvTool()], plugins=False)
    result = run_tool("task_sequence", [task], registry=registry, variables={"whole": ["a", "x"]})
    assert result.data["results"]["t"] == {"argv": ["a", "x"], "input": {"n": "x"}}


@pytest.mark.parametrize("name", ["input", "args"])
def test_input_of_a_task_may_be_one_text(name: str) -> None:
    stub = StubTool()
    variables = {"v": {"x": "{{ 1 }}"}}
    assert go([{"kind": "stub", name: "{{ v }}"}], stub=stub, variables=variables).error is None
    assert stub.calls[0].input == {"x": "{{ 1 }}"}
    result = go([{"name": "t", "kind": "stub", name: "{{ v.x }}"}], variables=variables)
    assert result.error.message == f"task_sequence: task 't': {name!r} must be an object, not str"


def test_input_of_a_task_may_stand_under_spec() -> None:
    stub = StubTool()
    go([{"kind": "stub", "say": "{{ x }}", "spec": {"args": {"x": 5}}}], stub=stub)
    assert (stub.calls[0].say, stub.calls[0].input) == (5, {"x": 5})


def test_sequence_in_a_sequence_sets_and_gives_its_tasks_by_label() -> None:
    inner = [{"name": "i", "kind": "stub", "say": {"q": 3}, "set": {"ctx.deep": "{{ output.q }}"}}]
    stub = StubTool()
    tasks = [
        {"name": "a", "kind": "task_sequence", "tasks": inner},
        {"name": "b", "kind": "stub", "say": "[{{ ctx.deep }}] [{{ a.i.q }}] [{{ _prev.i.q }}]"},
    ]
    data = go(tasks, stub=stub).data
    assert data["results"] == {"a": {"i": {"q": 3}}, "b": "[3] [3] [3]"}
    assert rust_form(data)["_context_updates"] == {"ctx.deep": 3}
    assert python_form(data)["ctx"] == {"deep": 3}


def test_sequence_in_a_sequence_that_fails_keeps_what_it_set() -> None:
    inner = [{"name": "i", "kind": "stub", "say": 1, "set": {"ctx.x": 1}}, {"name": "f", "kind": "stub", "fail": True}]
    data = go([{"name": "a", "kind": "pipeline", "tasks": inner}]).data
    assert data["results"]["a"] == {"labeled_results": {"i": 1, "f": {"said": None}}, "failed_task": 1}
    assert (data["error"]["message"], data["updates"]) == ("planned", {"ctx.x": 1})


def test_part_of_a_value_is_reported_as_the_whole_value() -> None:
    """The control plane replaces what it is told of: the rest of it must not be lost."""
    tasks = [{"kind": "stub", "say": 2, "set": {"ctx.w.b": "{{ output }}", "ctx.n": 1}}]
    data = go(tasks, variables={"ctx": {"w": {"old": 1}}}).data
    assert rust_form(data)["_context_updates"] == {"ctx.w": {"old": 1, "b": 2}, "ctx.n": 1}
    assert python_form(data)["ctx"] == {"w": {"old": 1, "b": 2}, "n": 1}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "htp"}, "Tool not found: htp"),
        ({"kind": "http"}, "field 'url' (or endpoint) is missing"),
        ({"kind": "stub", "args": ["a"]}, "task 't': 'args' must be an object, not list"),
        ({"kind": "task_sequence", "tasks": [{"kind": "stub", "say": "{{ a }}"}, {"kind": "htp"}]}, "not found: htp"),
    ],
)
def test_task_that_cannot_run_is_told_before_the_first_one_has_run(task: dict[str, Any], message: str) -> None:
    stub = StubTool()
    with pytest.raises(ConfigurationError) as caught:
        go([{"kind": "stub", "say": 1}, {"name": "t", **task}], stub=stub)
    assert message in str(caught.value)
    assert stub.calls == []


def test_task_with_a_template_or_with_rules_is_looked_at_when_its_turn_comes() -> None:
    stub = StubTool()
    hears = rules({"when": ON_ERROR, "then": {"do": "continue"}})
    tasks = [{"kind": "stub", "say": 1}, {"kind": "http", "spec": hears}, {"kind": "http", "method": "{{ m }}"}]
    result = go(tasks, stub=stub)
    assert (len(stub.calls), result.data["failed_task"]) == (1, "task_2")


# ── refused before anything runs ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("dialect", "flat"), [(Dialect.RUST, [1, 2]), (Dialect.PYTHON, [None, None])])
def test_scoped_names_are_flat_too_on_the_rust_plane(dialect: Dialect, flat: list[Any]) -> None:
    tasks = [{"kind": "stub", "set": {"ctx.x": 1, "iter.y": 2}}, {"name": "b", "kind": "stub", "say": "{{ [x, y] }}"}]
    assert go(tasks, dialect=dialect).data["results"]["b"] == flat


@pytest.mark.parametrize("dialect", Dialect)
def test_failed_task_that_ends_the_sequence_is_in_the_results_of_both_planes(dialect: Dialect) -> None:
    data = go([{"name": "f", "kind": "stub", "fail": True}], dialect=dialect).data
    assert data["results"] == {"f": {"said": None}}


def test_iter_is_not_defined_outside_of_a_loop() -> None:
    tasks = [{"name": "a", "kind": "stub", "say": "{{ [iter is defined, iter.x is defined] }}"}]
    assert go(tasks).data["results"]["a"] == [False, False]


# ── stops ───────────────────────────────────────────────────────────────────────────────────────


class LastWords(StubTool):
    """Gives what it has when it is cancelled, as a tool may."""

    kind: ClassVar[str] = "last_words"

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def run(self, config: StubConfig, context: ToolContext) -> ToolResult:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if config.fail:
                raise ToolError("closed", kind="connection") from None
        return ToolResult.success("so far")


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("timeout_s", [None, 60.0])
@pytest.mark.parametrize("reason", ["cancelled", "shutdown"])
async def test_stopped_sequence_starts_no_further_task(reason: str, timeout_s: float | None, fail: bool) -> None:
    on_error = rules({"when": ON_ERROR, "then": {"do": "continue"}})
    tasks = [{"name": "a", "kind": "last_words", "fail": fail, "spec": on_error}, {"name": "b", "kind": "stub"}]
    first, second, stop = LastWords(), StubTool(), Stop()
    registry = Registry([first, second], plugins=False)
    context = tool_context(registry=registry, stop=stop, timeout_s=timeout_s)
    call = asyncio.ensure_future(registry.run_tool("task_sequence", tasks, context))
    await first.started.wait()
    stop.set(reason)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert second.calls == []


@virtual_time.PASSES
async def test_stopped_sequence_does_not_wait_for_the_delay_of_a_retry() -> None:
    again = rules({"when": ON_ERROR, "then": {"do": "retry", "attempts": 3, "delay": 20}})
    tool, stop = LastWords(), Stop()
    registry = Registry([tool], plugins=False)
    context = tool_context(registry=registry, stop=stop, timeout_s=60.0)
    tasks = [{"name": "a", "kind": "last_words", "fail": True, "spec": again}]
    call = asyncio.ensure_future(registry.run_tool("task_sequence", tasks, context))
    await tool.started.wait()
    later: list[str] = []
    asyncio.get_running_loop().call_later(1, later.append, "a second")
    stop.set("shutdown")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert later == []
