"""The DSL core with a small worker: what runs, with which inputs, and how it ends, on both dialects."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dev.stand_in import stand_in
from noetl_worker.dev import DevControlPlane, NatsServer, PlaneSettings
from noetl_worker.dev.orchestration.execution import Execution
from noetl_worker.errors import TemplateError
from noetl_worker.models import Dialect

BOTH = pytest.mark.parametrize("dialect", list(Dialect), ids=[dialect.value for dialect in Dialect])
NOOP = {"kind": "noop"}


def python(code: str, **given: Any) -> dict[str, Any]:
    return {"kind": "python", "input": given, "code": code}


def playbook(*steps: dict[str, Any], workload: dict[str, Any] | None = None, path: str = "p") -> str:
    document = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": path, "path": path},
        "workload": workload or {},
        "workflow": list(steps),
    }
    return yaml.safe_dump(document, sort_keys=False)


def arcs(*found: Any, mode: str = "exclusive") -> dict[str, Any]:
    return {"spec": {"mode": mode}, "arcs": list(found)}


async def ran(
    dialect: Dialect, *texts: str, payload: dict[str, Any] | None = None
) -> tuple[Execution, list[dict[str, Any]]]:
    """Run the first playbook to its end; the execution, and every command the worker claimed."""
    settings = PlaneSettings(dialect=dialect)
    async with NatsServer() as nats, DevControlPlane(settings, nats_url=nats.url) as plane:
        for text in texts:
            plane.register_playbook(text)
        async with stand_in(nats.url, plane.url, dialect) as worker:
            execution_id = await plane.execute("p", payload)
            await plane.wait_all_ended()
            return plane.execution(execution_id), worker.claimed


def steps_of(claimed: list[dict[str, Any]]) -> list[str]:
    return [command["node_name"].partition(":")[0] for command in claimed]


def given_to(claimed: list[dict[str, Any]], step: str) -> list[dict[str, Any]]:
    """Inputs of a step's commands, where either dialect puts them."""
    found = [command["context"] for command in claimed if command["node_name"] == step]
    return [
        {
            **context.get("input", {}),
            **context["tool_config"].get("input", {}),
            **context["tool_config"].get("args", {}),
        }
        for context in found
    ]


@BOTH
async def test_workload_and_payload_reach_templates(dialect: Dialect) -> None:
    text = playbook(
        {"step": "start", "tool": python("result = {'x': a + b}", a="{{ workload.a }}", b="{{ b }}")},
        workload={"a": 1, "b": 2},
    )
    execution, _ = await ran(dialect, text, payload={"b": 40})
    assert execution.status == "COMPLETED"
    assert execution.last_result == {"x": 41}


@BOTH
async def test_exclusive_arcs_take_the_first_that_holds(dialect: Dialect) -> None:
    start = {
        "step": "start",
        "tool": python("result = {'n': 5}"),
        "next": arcs(
            {"step": "no", "when": "{{ start.n > 7 }}"}, {"step": "yes", "when": "start.n > 3"}, {"step": "no"}
        ),
    }
    execution, claimed = await ran(
        dialect, playbook(start, {"step": "yes", "tool": NOOP}, {"step": "no", "tool": NOOP})
    )
    assert (execution.status, steps_of(claimed)) == ("COMPLETED", ["start", "yes"])


@BOTH
async def test_inclusive_arcs_take_all_that_hold(dialect: Dialect) -> None:
    start = {
        "step": "start",
        "tool": python("result = {'n': 5}"),
        "next": arcs(
            {"step": "a", "when": "{{ start.n > 3 }}"}, {"step": "b"}, {"step": "c", "when": False}, mode="inclusive"
        ),
    }
    others = [{"step": name, "tool": NOOP} for name in "abc"]
    execution, claimed = await ran(dialect, playbook(start, *others))
    assert (execution.status, sorted(steps_of(claimed))) == ("COMPLETED", ["a", "b", "start"])


@BOTH
async def test_step_set_comes_before_the_arcs_and_arc_set_after(dialect: Dialect) -> None:
    start = {
        "step": "start",
        "tool": python("result = {'n': 5}"),
        "set": {"ctx.n": "{{ output.data.n }}", "iter.gone": 1},
        "next": arcs({"step": "use", "when": "{{ ctx.n == 5 }}", "set": {"ctx.note": "saw {{ ctx.n }}"}}),
    }
    use = {"step": "use", "tool": python("result = {}", n="{{ ctx.n }}", note="{{ ctx.note }}", gone="{{ ctx.gone }}")}
    _, claimed = await ran(dialect, playbook(start, use))
    gone = None if dialect is Dialect.RUST else "{{ ctx.gone }}"
    assert given_to(claimed, "use") == [{"n": 5, "note": "saw 5", "gone": gone}]


@BOTH
@pytest.mark.parametrize(
    "spec", [{"mode": "sequential"}, {"mode": "parallel", "max_in_flight": 2}, {"mode": "parallel"}]
)
async def test_loop_runs_every_item_and_shows_what_the_real_plane_does(dialect: Dialect, spec: dict[str, Any]) -> None:
    each = {
        "step": "start",
        "loop": {"in": "{{ workload.items }}", "iterator": "n", "spec": spec},
        "tool": python("result = {'square': n * n}", n="{{ iter.n }}"),
        "next": arcs({"step": "after"}),
    }
    after = {"step": "after", "tool": python("result = {'seen': seen}", seen="{{ start }}")}
    execution, claimed = await ran(dialect, playbook(each, after, workload={"items": [3, 1, 2]}))
    assert (execution.status, sorted(steps_of(claimed))) == ("COMPLETED", ["after", "start", "start", "start"])
    seen = execution.last_result["seen"]
    if dialect is Dialect.PYTHON:  # what came back last
        assert seen["stats"]["success"] == 3
        assert seen["results"] in ([{"square": 9}], [{"square": 1}], [{"square": 4}])
    else:
        assert [(row["status"], {*row["context"]}) for row in seen] == [("success", {"command_id", "status"})] * 3


@BOTH
async def test_empty_loop_is_passed_on_the_rust_plane_alone(dialect: Dialect) -> None:
    each = {"step": "start", "loop": {"in": [], "iterator": "n"}, "tool": NOOP, "next": arcs({"step": "after"})}
    execution, claimed = await ran(dialect, playbook(each, {"step": "after", "tool": NOOP}))
    assert (execution.status, steps_of(claimed)) == ("COMPLETED", ["after"] if dialect is Dialect.RUST else [])


@BOTH
async def test_loop_over_something_else_fails_or_stands_still_and_says_so(dialect: Dialect) -> None:
    """Recorded (loop-over-seq-rows): the Python plane issues nothing and keeps it running."""
    each = {"step": "start", "loop": {"in": "{{ workload.n }}", "iterator": "n"}, "tool": NOOP}
    execution, _ = await ran(dialect, playbook(each, workload={"n": 7}))
    status = "FAILED" if dialect is Dialect.RUST else "RUNNING"
    assert (execution.status, execution.error) == (status, "step 'start': loop.in is not a list: {{ workload.n }}")
    assert execution.is_at_rest


@BOTH
async def test_loop_with_sequence_body_gets_its_item(dialect: Dialect) -> None:
    tasks = [
        {"name": "double", **python("result = {'n': n * 2}", n="{{ iter.n }}")},
        {"name": "tell", **python("result = {'told': got['n']}", got="{{ _prev }}")},
    ]
    each = {"step": "start", "loop": {"in": [1, 2], "iterator": "n"}, "tool": tasks}
    execution, claimed = await ran(dialect, playbook(each))
    assert (execution.status, len(claimed)) == ("COMPLETED", 2)


async def test_sequential_loop_stops_at_a_failed_item() -> None:
    each = {
        "step": "start",
        "loop": {"in": [1, 0, 2], "iterator": "n"},
        "tool": python("result = 1 / n", n="{{ iter.n }}"),
        "next": arcs({"step": "after"}),
    }
    execution, claimed = await ran(Dialect.PYTHON, playbook(each, {"step": "after", "tool": NOOP}))
    assert (execution.status, steps_of(claimed)) == ("FAILED", ["start", "start"])
    assert execution.error == "division by zero"


async def test_parallel_loop_goes_on_after_a_failed_item_and_ends_failed() -> None:
    each = {
        "step": "start",
        "loop": {"in": [1, 0, 2], "iterator": "n", "spec": {"mode": "parallel", "max_in_flight": 1}},
        "tool": python("result = 1 / n", n="{{ iter.n }}"),
        "next": arcs({"step": "after"}),
    }
    execution, claimed = await ran(Dialect.PYTHON, playbook(each, {"step": "after", "tool": NOOP}))
    assert (execution.status, steps_of(claimed)) == ("FAILED", ["start", "start", "start"])
    assert execution.variables["start"]["stats"] == {"total": 3, "failed": 1, "success": 2}


@BOTH
async def test_sequence_results_by_name_and_its_ctx_are_there_afterwards(dialect: Dialect) -> None:
    tasks = [
        {
            "name": "make",
            **python("result = {'value': seed + 1}", seed="{{ workload.seed }}"),
            "set": {"ctx.made": "{{ output.value }}"},
        },
        {"name": "show", "kind": "shell", "command": "echo {{ make.value }}"},
    ]
    path = "start.results.make.value" if dialect is Dialect.PYTHON else "start.make.value"
    after = {"step": "after", "tool": python("result = {}", made="{{ ctx.made }}", byname="{{ " + path + " }}")}
    execution, claimed = await ran(
        dialect,
        playbook({"step": "start", "tool": tasks, "next": arcs({"step": "after"})}, after, workload={"seed": 4}),
    )
    assert execution.status == "COMPLETED"
    assert given_to(claimed, "after") == [{"made": 5, "byname": 5}]


async def test_error_arc_runs_without_the_error_in_its_input_and_the_end_is_failed() -> None:
    """Recorded: arcs-on-error."""
    start = {
        "step": "start",
        "tool": python("raise ValueError('planned')"),
        "next": arcs(
            {"step": "good", "when": "{{ output.status == 'ok' }}"},
            {"step": "rescue", "when": "{{ output.status == 'error' }}"},
        ),
    }
    rescue = {"step": "rescue", "tool": python("result = {'why': why}", why="{{ output.error }}")}
    execution, claimed = await ran(Dialect.PYTHON, playbook(start, rescue, {"step": "good", "tool": NOOP}))
    assert (execution.status, steps_of(claimed)) == ("FAILED", ["start", "rescue"])
    assert execution.last_result == {"why": None}


async def test_raised_error_ends_the_execution_on_the_rust_plane() -> None:
    start = {"step": "start", "tool": python("raise ValueError('planned')"), "next": arcs({"step": "after"})}
    execution, claimed = await ran(Dialect.RUST, playbook(start, {"step": "after", "tool": NOOP}))
    assert (execution.status, execution.error, steps_of(claimed)) == ("FAILED", "planned", ["start"])


@BOTH
async def test_step_without_a_tool_only_routes(dialect: Dialect) -> None:
    start = {"step": "start", "next": arcs({"step": "a", "when": "{{ workload.n > 1 }}"}, {"step": "b"})}
    execution, claimed = await ran(
        dialect, playbook(start, {"step": "a", "tool": NOOP}, {"step": "b", "tool": NOOP}, workload={"n": 2})
    )
    assert (execution.status, steps_of(claimed)) == ("COMPLETED", ["a"])


async def test_circle_without_tools_fails_instead_of_hanging() -> None:
    start = {"step": "start", "next": arcs({"step": "other"})}
    execution, _ = await ran(Dialect.PYTHON, playbook(start, {"step": "other", "next": arcs({"step": "start"})}))
    assert execution.status == "FAILED"
    assert "leads back to itself" in str(execution.error)


@BOTH
async def test_steps_are_entered_again_on_the_python_plane_alone(dialect: Dialect) -> None:
    start = {
        "step": "start",
        "tool": python("result = {'n': n + 1}", n="{{ ctx.n | default(0) }}"),
        "set": {"ctx.n": "{{ output.data.n }}"},
        "next": arcs({"step": "start", "when": "{{ ctx.n < 3 }}"}),
    }
    execution, claimed = await ran(dialect, playbook(start))
    runs = 3 if dialect is Dialect.PYTHON else 1
    status = "COMPLETED" if dialect is Dialect.PYTHON else "RUNNING"  # recorded (set-counter): for ever
    assert (execution.status, len(claimed), execution.last_result) == (status, runs, {"n": runs})


@BOTH
async def test_child_execution_knows_its_parent(dialect: Dialect) -> None:
    parent = playbook(
        {"step": "start", "tool": {"kind": "playbook", "path": "c", "input": {"who": "{{ workload.who }}"}}},
        workload={"who": "Grace"},
    )
    child = playbook(
        {"step": "start", "tool": python("result = {'hi': who}", who="{{ workload.who }}")},
        path="c",
        workload={"who": "nobody"},
    )
    execution, claimed = await ran(dialect, parent, child)
    assert execution.status == "COMPLETED"
    assert {command["action"] for command in claimed} == {"playbook", "python"}
    assert given_to(claimed[1:], "start")[0]["who"] == "Grace"


@BOTH
async def test_large_fields_travel_by_reference_on_the_python_plane_only(dialect: Dialect) -> None:
    text = playbook(
        {"step": "start", "tool": python("result = {'size': len(blob)}", blob="{{ workload.blob }}")},
        workload={"blob": "x" * 10_000},
    )
    execution, claimed = await ran(dialect, text)
    config = claimed[0]["context"]["tool_config"]
    assert (config.get("kind") == "result_ref") is (dialect is Dialect.PYTHON)
    assert execution.last_result == {"size": 10_000}


@BOTH
async def test_cases_reach_the_worker_unrendered(dialect: Dialect) -> None:
    case = {"when": [{"left": "{{ result.n }}", "op": "eq", "right": 1}], "then": "continue"}
    _, claimed = await ran(dialect, playbook({"step": "start", "tool": {**NOOP, "cases": [case]}, "cases": [case]}))
    context = claimed[0]["context"]
    assert context["cases"] == [case]
    assert context["tool_config"]["cases"] == [case]


def join_of(condition: str = "") -> str:
    arc = {"step": "last", "when": condition} if condition else {"step": "last"}
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "a"}, {"step": "b"}, mode="inclusive")}
    a, b = ({"step": name, "tool": NOOP, "next": arcs(arc)} for name in "ab")
    return playbook(
        start, a, b, {"step": "last", "tool": python("result = {}", a="{{ a is defined and b is defined }}")}
    )


@BOTH
async def test_a_step_that_two_lead_to_runs_once_and_on_the_rust_plane_after_both(dialect: Dialect) -> None:
    _, claimed = await ran(dialect, join_of())
    assert sorted(steps_of(claimed)) == ["a", "b", "last", "start"]
    if dialect is Dialect.RUST:
        assert given_to(claimed, "last") == [{"a": True}]


async def test_a_step_that_was_passed_over_is_not_entered_later_on_the_rust_plane() -> None:
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "way", "when": "{{ true }}"}, {"step": "last"})}
    way = {"step": "way", "tool": NOOP, "next": arcs({"step": "last"})}
    _, claimed = await ran(Dialect.RUST, playbook(start, way, {"step": "last", "tool": NOOP}))
    assert steps_of(claimed) == ["start", "way"]


async def test_a_steps_when_passes_over_its_tool_on_the_rust_plane_alone() -> None:
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "maybe"})}
    maybe = {"step": "maybe", "when": "{{ 1 > 2 }}", "tool": NOOP, "next": arcs({"step": "last"})}
    text = playbook(start, maybe, {"step": "last", "tool": NOOP})
    assert steps_of((await ran(Dialect.RUST, text))[1]) == ["start", "last"]
    assert steps_of((await ran(Dialect.PYTHON, text))[1]) == ["start", "maybe", "last"]


async def test_a_template_that_the_rust_plane_cannot_render_fails_the_playbook() -> None:
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "last"})}
    last = {"step": "last", "tool": python("result = {}", a="{{ start.get('a') }}")}
    execution, claimed = await ran(Dialect.RUST, playbook(start, last))
    assert (execution.status, steps_of(claimed)) == ("FAILED", ["start"])
    assert "unknown method" in str(execution.error)


async def test_earlier_steps_of_the_python_plane_keep_lists_under_their_context_alone() -> None:
    start = {"step": "start", "tool": python("result = {'n': 1, 'rows': [2]}"), "next": arcs({"step": "way"})}
    way = {"step": "way", "tool": NOOP, "next": arcs({"step": "last"})}
    last = {"step": "last", "tool": python("result = {}", whole="{{ start }}", rows="{{ start.rows }}")}
    _, claimed = await ran(Dialect.PYTHON, playbook(start, way, last))
    whole = {"n": 1, "context": {"n": 1, "rows": [2]}}
    assert given_to(claimed, "last") == [{"whole": whole, "rows": [2]}]


async def test_a_first_step_that_the_rust_plane_cannot_render_is_not_executed() -> None:
    with pytest.raises(TemplateError, match="unknown method"):
        await ran(Dialect.RUST, playbook({"step": "start", "tool": python("result = {}", a="{{ workload.get('a') }}")}))


async def test_rust_plane_keeps_an_execution_running_where_no_arc_brings_a_step_in() -> None:
    """Recorded (arcs-none-match, large-single): the real plane never ends it; to wait for the end does not hang."""
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "last", "when": "{{ 1 > 2 }}"})}
    last = {"step": "last", "tool": NOOP}
    execution, claimed = await ran(Dialect.RUST, playbook(start, last))
    assert (execution.status, execution.is_at_rest, steps_of(claimed)) == ("RUNNING", True, ["start"])
    again = {**start, "next": arcs({"step": "last", "when": "{{ 1 > 2 }}"}, {"step": "wrong"})}
    wrong = {"step": "wrong", "tool": NOOP, "next": arcs({"step": "last"})}
    execution, claimed = await ran(Dialect.RUST, playbook(again, last, wrong))
    assert (execution.status, steps_of(claimed)) == ("RUNNING", ["start", "wrong"])


@pytest.mark.parametrize("text", ["{{ 'a' | urlencode }}", "{{ nothing | length }}", "{{ ctx.none.rows | count }}"])
async def test_rust_plane_fails_a_playbook_with_a_filter_that_it_does_not_know_or_a_length_of_nothing(
    text: str,
) -> None:
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "last"})}
    last = {"step": "last", "tool": python("result = {'v': v}", v=text)}
    execution, claimed = await ran(Dialect.RUST, playbook(start, last))
    assert (execution.status, steps_of(claimed)) == ("FAILED", ["start"])


async def test_rust_plane_counts_the_bytes_of_a_text() -> None:
    execution, claimed = await ran(
        Dialect.RUST,
        playbook({"step": "start", "tool": python("result = {}", n="{{ t | length }}")}, workload={"t": "\u00e4b"}),
    )
    assert claimed[0]["context"]["tool_config"]["args"]["n"] == 3
    assert execution.status == "COMPLETED"


async def test_ctx_of_the_tasks_wins_over_the_set_of_their_step_on_the_rust_plane_and_is_not_seen_of_loop_items() -> (
    None
):
    """Seen on the real plane (set-order, loop-sequence)."""
    tasks = [{"name": "one", "kind": "python", "code": "result = {'a': 5}", "set": {"ctx.who": "task"}}]
    start = {"step": "start", "tool": tasks, "set": {"ctx.who": "step"}, "next": arcs({"step": "last"})}
    looped = {**start, "loop": {"in": "{{ [1, 2] }}", "iterator": "it"}, "set": {}}
    last = {"step": "last", "tool": python("result = {'who': who}", who="{{ ctx.who }}")}
    seen = [(await ran(Dialect.RUST, playbook(first, last)))[1][-1] for first in (start, looped)]
    assert [one["context"]["tool_config"]["args"]["who"] for one in seen] == ["task", None]
