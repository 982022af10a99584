"""The DSL core: what the recorded playbooks of tests/compat do not show of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from dev.served_plane import claim, serving, with_worker
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.errors import PlaybookError
from noetl_worker.models import Dialect

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


async def ran(dialect: Dialect, *texts: str, payload: dict[str, Any] | None = None) -> tuple[Execution, list[str]]:
    """Run the first playbook to its end; the execution, and the steps of which a worker claimed a command."""
    async with with_worker(dialect) as plane:
        for text in texts:
            plane.register_playbook(text)
        execution_id = await plane.execute("p", payload)
        await plane.wait_all_ended()
        return plane.execution(execution_id), [one.node for one in plane.events(execution_id, "command.claimed")]


async def test_workload_and_payload_reach_templates(dialect: Dialect) -> None:
    text = playbook(
        {"step": "start", "tool": python("result = {'x': a + b}", a="{{ workload.a }}", b="{{ b }}")},
        workload={"a": 1, "b": 2},
    )
    execution, _ = await ran(dialect, text, payload={"b": 40})
    assert execution.status == "COMPLETED"
    assert execution.last_result == {"x": 41}


async def test_error_of_the_engine_itself_ends_the_execution_with_its_text(dialect: Dialect) -> None:
    def out_of_order(event: LoggedEvent) -> None:
        if (event.event_type, event.node) == ("command.issued", "last"):
            raise RuntimeError("out of order")

    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "last"})}
    async with with_worker(dialect) as plane:
        plane.register_playbook(playbook(start, {"step": "last", "tool": NOOP}))
        plane.log.listen(out_of_order)
        execution = plane.execution(await plane.execute("p"))
        await plane.wait_all_ended()
    assert (execution.status, execution.error) == ("FAILED", "out of order")


async def test_first_step_that_issues_no_command_is_named_where_the_execution_stands_still(dialect: Dialect) -> None:
    start = {"step": "start", "loop": {"in": "{{ workload.none }}", "iterator": "n"}, "tool": NOOP}
    execution, claimed = await ran(dialect, playbook(start, workload={"none": []}))
    assert (execution.is_at_rest, execution.status, claimed) == (True, "RUNNING", [])
    assert execution.error == "step 'start': the first step is a loop without items"


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([{"step": "start"}], 400, "workflow[0]: missing field `tool`"),
        ([{"step": "one", "tool": NOOP}], 422, "Workflow must have a step named 'start'"),
        (
            [{"step": "start", "tool": NOOP, "loop": {"in": [1], "iterator": "n"}}],
            400,
            "workflow[0].loop.in: invalid type, expected a string",
        ),
    ],
)
async def test_rust_plane_refuses_to_execute_what_it_cannot_read(
    steps: list[dict[str, Any]], status: int, reason: str
) -> None:
    async with serving(dialect=Dialect.RUST) as (plane, client):
        plane.register_playbook(playbook(*steps))
        answer = await client.post("/api/execute", json={"path": "p"})
        assert (answer.status_code, answer.json()["error"]) == (status, reason)
        with pytest.raises(PlaybookError, match=re.escape(reason)):
            await plane.execute("p")


async def test_cases_reach_the_worker_unrendered(dialect: Dialect) -> None:
    case = {"when": [{"left": "{{ result.n }}", "op": "eq", "right": 1}], "then": "continue"}
    async with serving(dialect=dialect) as (plane, client):
        plane.register_playbook(playbook({"step": "start", "tool": {**NOOP, "cases": [case]}, "cases": [case]}))
        (issued,) = plane.commands(await plane.execute("p"))
        context = (await claim(client, issued)).json()["context"]
    assert context["cases"] == [case]
    assert context["tool_config"]["cases"] == [case]


async def test_a_step_that_was_passed_over_is_not_entered_later_on_the_rust_plane() -> None:
    start = {"step": "start", "tool": NOOP, "next": arcs({"step": "way", "when": "{{ true }}"}, {"step": "last"})}
    way = {"step": "way", "tool": NOOP, "next": arcs({"step": "last"})}
    _, claimed = await ran(Dialect.RUST, playbook(start, way, {"step": "last", "tool": NOOP}))
    assert claimed == ["start", "way"]
