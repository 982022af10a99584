"""What is read from recorded events of both real planes."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.authoring.run_page.reading import MOST_ASKED
from noetl_worker.authoring.run_page.run import CommandState, RunArc
from noetl_worker.authoring.run_page.rust_events import RustRunEvents
from noetl_worker.models import Dialect
from run_page.told_plane import ToldPlane, answer_of, in_a_row, uncut_executions

EVENTS = "tool-python-events-full-example"


def python_plane(**given: Any) -> ToldPlane:
    """The one execution of which the Python plane's events were recorded whole."""
    detail = {**answer_of(Dialect.PYTHON, "tool-python-execution-detail"), **answer_of(Dialect.PYTHON, EVENTS)}
    return ToldPlane(Dialect.PYTHON, detail, playbook=in_a_row("start", "finish"), **given)


async def test_run_of_the_python_plane_says_what_each_command_got_and_gave() -> None:
    run = await python_plane().read()
    start, finish = run.commands
    assert (run.path, run.status, run.version, run.workload) == (
        "rec/tool-python",
        "COMPLETED",
        "2",
        {"who": "lin", "count": 3},
    )
    assert run.ended - run.started == pytest.approx(0.523647)
    assert start.input == {"code": 'result = {"text": who * count}\n', "input": {"who": "lin", "count": 3}}
    assert (start.output, finish.output) == ({"text": "linlinlin"}, {"final": "linlinlin"})
    assert (start.command_id, start.event_id) == ("767527441685282835", 767527441685282836)
    assert (start.worker, start.attempts, start.state) == ("worker-rec-a", 1, CommandState.DONE)
    assert start.issued < start.claimed < start.started < start.ended


async def test_way_that_was_taken_is_what_the_python_plane_says() -> None:
    run = await python_plane().read()
    assert run.steps["start"].ways == [RunArc("finish", "", is_taken=True)]
    assert run.steps["start"].kind == "python"


async def test_notes_are_read_from_their_own_event() -> None:
    run = await ToldPlane(Dialect.PYTHON, answer_of(Dialect.PYTHON, "noted-events")).read()
    for command in run.commands:
        assert (command.output, command.stdout, command.state) == ({"ok": True}, "hello\n", CommandState.DONE)
        assert command.notes["tasks"] == [{"kind": "python", "name": "one", "status": "ok", "attempt": 1}]


async def test_claim_that_was_taken_over_is_two_attempts_and_no_end() -> None:
    run = await ToldPlane(Dialect.PYTHON, answer_of(Dialect.PYTHON, "lease-unregistered-events")).read()
    (only,) = run.commands
    assert (only.attempts, only.state, only.ended, only.output) == (2, CommandState.WAITING, None, None)


async def test_run_of_the_rust_plane_says_how_each_command_ended() -> None:
    run = await ToldPlane(Dialect.RUST, answer_of(Dialect.RUST, "fail-execution")).read()
    (only,) = run.commands
    assert (run.status, run.ended) == ("FAILED", None)
    assert (only.state, only.error, only.worker) == (CommandState.FAILED, "it broke", "hand-1")
    assert only.event_id == 383769036715986944


@pytest.mark.parametrize("data", [0, False, [], "", {"rows": []}])
def test_result_that_is_nothing_is_shown_as_what_it_is(data: Any) -> None:
    """Of the Rust plane; as event-call-done."""
    result = {"status": "success", "context": {"data": data}}
    event = {"event_type": "call.done", "result": {"status": "COMPLETED", "context": {"result": result}}}
    assert RustRunEvents().outcome(event).output == data


async def test_end_that_was_sent_twice_is_one_command_with_its_first_end() -> None:
    run = await ToldPlane(Dialect.RUST, answer_of(Dialect.RUST, "batch-execution")).read()
    (only,) = run.commands
    assert (only.state, only.output) == (CommandState.DONE, {"a": 1})
    assert only.ended == pytest.approx(1795564867.2538)


async def test_every_recorded_run_of_the_rust_plane_is_read_whole() -> None:
    for detail in uncut_executions():
        run = await ToldPlane(Dialect.RUST, detail).read()
        issued = [event for event in detail["events"] if event["event_type"] == "command.issued"]
        assert len(run.commands) == len(issued), run.path
        for command in run.commands:
            assert command.worker, run.path
            assert command.state in (CommandState.DONE, CommandState.FAILED) or run.status == "RUNNING", run.path


async def test_tool_error_of_the_rust_plane_is_a_failed_command_of_a_run_that_goes_on() -> None:
    (detail,) = [one for one in uncut_executions() if one["execution_id"] == 383768378474500096]
    run = await ToldPlane(Dialect.RUST, detail, playbook=in_a_row("start", "missing")).read()
    start, missing = run.commands
    assert run.status == "COMPLETED"
    assert (start.state, start.output["status_code"]) == (CommandState.DONE, 200)
    assert start.stdout.startswith('{"status":"ok"')
    assert (missing.state, missing.error) == (CommandState.FAILED, "HTTP 404 response")
    assert run.steps["start"].ways == [RunArc("missing", "", is_taken=True)]


async def test_input_of_the_rust_plane_is_asked_for_and_a_command_that_is_gone_has_none() -> None:
    given = answer_of(Dialect.RUST, "command-get")
    detail = answer_of(Dialect.RUST, "fail-execution")
    plane = ToldPlane(Dialect.RUST, detail, commands={383769036715986944: given})
    (only,) = (await plane.read()).commands
    assert (only.kind, only.input) == ("python", given["context"]["tool_config"])
    plane.commands = {}
    (only,) = (await plane.read()).commands
    assert only.input is None


async def test_more_commands_than_are_asked_for_is_said() -> None:
    (detail,) = [one for one in uncut_executions() if one["execution_id"] == 383768378474500096]
    issued = next(event for event in detail["events"] if event["event_type"] == "command.issued")
    more = [{**issued, "event_id": issued["event_id"] + number} for number in range(MOST_ASKED)]
    plane = ToldPlane(Dialect.RUST, {**detail, "events": [*detail["events"], *more]})
    run = await plane.read()
    assert len(plane.asked) == MOST_ASKED
    assert any(note.startswith("The input of ") for note in run.notes)


async def test_playbook_that_the_catalog_lost_is_said_and_its_steps_come_from_events() -> None:
    plane = python_plane()
    plane.playbook = None
    run = await plane.read()
    assert list(run.steps) == ["start", "finish"]
    assert run.steps["start"].ways == [RunArc("finish", "", is_taken=True)]
    assert "Catalog entry not found" in run.notes[0]


async def test_all_pages_are_read_and_an_event_on_two_of_them_is_one() -> None:
    events = answer_of(Dialect.PYTHON, EVENTS)["events"]
    detail = {**answer_of(Dialect.PYTHON, "tool-python-execution-detail"), "events": events[:3]}
    detail["pagination"] = {"has_next": True}
    pages = {
        1: {"events": events[:12], "pagination": {"has_next": True}},
        2: {"events": events[10:24], "pagination": {"has_next": True}},
        3: {"events": events[24:], "pagination": {"has_next": False}},
    }
    whole, in_pages = await python_plane().read(), await ToldPlane(Dialect.PYTHON, detail, pages=pages).read()
    assert in_pages.commands == whole.commands


async def test_plane_is_asked_whose_input_is_whose_where_its_events_leave_it_open() -> None:
    """An item that nobody has claimed: three were issued, and the events name two of them."""

    def issued(event_id: int, item: int) -> dict[str, Any]:
        context = {"tool_config": {"input": {"n": item}}, "input": {"__loop_claimed_index": item}}
        return {"event_id": event_id, "event_type": "command.issued", "node_name": "each", "context": context}

    def claimed(event_id: int, number: int) -> dict[str, Any]:
        result = {"context": {"command_id": number}}
        return {"event_id": event_id, "event_type": "command.claimed", "node_name": "each", "result": result}

    events = [issued(11, 0), issued(12, 1), issued(13, 2), claimed(21, 3), claimed(22, 1)]
    plane = ToldPlane(Dialect.PYTHON, {"events": events})
    plane.commands = {11: {"meta": {"command_id": 1}}, 12: {"meta": {"command_id": 2}}, 13: {"meta": {"command_id": 3}}}
    commands = (await plane.read()).commands
    assert [(one.command_id, one.item, one.attempts) for one in commands] == [("1", 0, 1), ("2", 1, 0), ("3", 2, 1)]
