"""What the planes are told, and in which requests."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any

import pytest

import virtual_time
from json_libraries import without_orjson
from noetl_worker.models import CaseDecision, Dialect, Exit, FitRules, Report, ToolResult
from noetl_worker.pipeline.report import results
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text
from unit.outboxes import event_set
from unit.planes import Ours, answer, command, emitter, plane
from unit.reports import OK, accept, names, tell

FAILED = Report(status="error", context={"error": "boom"}, response={"error": "boom"}, error="boom")


anyio_backend = virtual_time.anyio_backend


# ── the Python plane ──


async def test_no_header_has_the_name_of_the_worker() -> None:
    """One outside latin-1 could not be sent, and no outcome was ever accepted."""
    at, transport = plane(accept)
    told = CommandEvents(command(), at, "воркер-1", emitter(), hold_s=0.0)
    told.start()
    await told.finish(OK, Ours())
    lost = event_set(worker_id="воркер-1")
    lost.rescue("9")
    sent = [*(value for *_, headers in transport.sent for value in headers.values()), *lost.headers.values()]
    assert len(sent) > 2
    assert all(map(str.isascii, sent))


async def test_slow_command_reports_its_start_first_and_then_a_batch_of_three() -> None:
    transport = await tell(OK, hold_s=0.0, wait_for_started=True)
    assert [names(body) for body in transport.bodies("/api/events/batch")] == [
        ["command.started", "step.enter"],
        ["call.done", "step.exit", "command.completed"],
    ]
    keys = [headers["idempotency-key"] for *_, headers in transport.sent]
    assert keys[0] != keys[1]


async def test_start_that_was_not_accepted_travels_with_the_end_and_never_after_it() -> None:
    refused_once = [answer(503, {"detail": {"code": "pool_saturated"}})]
    transport = await tell(
        OK, lambda *a: refused_once.pop() if refused_once else accept(*a), hold_s=0.0, wait_for_started=True
    )
    assert names(transport.bodies("/api/events/batch")[-1])[0] == "command.started"


async def test_what_a_failed_tool_printed_is_told_once_on_the_python_plane() -> None:
    """Of a failure its own worker says status and text in each event; three copies of a trace were 45 % more bytes."""
    told = {"status": "error", "error": "boom", "stderr": "Traceback ...", "code": "ValueError"}
    body = (await tell(Report(status="error", context=told, response=told, error="boom"))).bodies("/api/events/batch")[
        0
    ]
    contexts = [event["payload"]["result"]["context"] for event in body["events"][2:]]
    assert contexts == [told, {"status": "error", "error": "boom"}, {"status": "error", "error": "boom"}]


async def test_command_id_is_echoed_in_the_form_received_in_payload_and_meta() -> None:
    for command_id in (767498442485530630, "767498987451449456"):
        done = (await tell(OK, command_id=command_id)).bodies("/api/events/batch")[0]["events"][2]
        assert done["payload"]["command_id"] == done["meta"]["command_id"] == command_id


async def test_notes_are_an_event_of_their_own_which_no_caller_of_the_execution_is_given() -> None:
    """The plane's kind `agent` returns the context of a child's last terminal event (recorded: noted-events)."""
    notes: Any = {"case": {"index": 1, "action": "exit"}, "output": {"stdout": "printed", "stderr": ""}, "tasks": []}
    report = Report(status="success", context={"output": "mine"}, exit=Exit("done", {"k": 1}), notes=notes)
    events = (await tell(report)).bodies("/api/events/batch")[0]["events"]
    assert [event["name"] for event in events[2:]] == ["command.noted", "call.done", "step.exit", "command.completed"]
    assert (events[2]["payload"]["result"], events[2]["actionable"]) == ({"context": notes}, False)
    assert [event["payload"]["result"]["context"] for event in events[3:]] == [{"output": "mine"}] * 3
    assert (events[4]["payload"]["status"], events[4]["payload"]["data"]) == ("done", {"k": 1})


# ── the Rust plane ──


async def test_rust_event_ids_are_above_the_commands_own() -> None:
    slow = await tell(OK, dialect=Dialect.RUST, hold_s=0.0, wait_for_started=True)
    ids = [body["event_id"] for body in slow.bodies("/api/events")]
    assert ids == sorted(set(ids))
    assert ids[0] > command(Dialect.RUST).event_id


@pytest.mark.parametrize("hold_s", [0.0, 60.0])
async def test_end_on_the_rust_plane_has_an_id_after_its_result_and_no_time_of_ours(
    hold_s: float,
) -> None:
    """Above the plane's time it would hide the results that come after it, below its result it would be unseen."""
    high = 2**62

    def script(method: str, path: str, body: Any) -> Response:
        return answer(200, {"status": "ok", "event_ids": [high - 1, high]} if "batch" in path else {"event_id": 1})

    transport = await tell(OK, script, dialect=Dialect.RUST, hold_s=hold_s, wait_for_started=not hold_s)
    [end] = transport.bodies("/api/events")
    assert end["event_id"] >> 22 == (high >> 22) + 1
    assert "created_at" not in end


async def test_tool_status_word_travels_in_the_rust_completed_event() -> None:
    report = Report(status="timeout", context={"status": "timeout"})
    last = (await tell(report, dialect=Dialect.RUST)).bodies("/api/events")[0]
    assert (last["status"], last["context"]["status"]) == ("timeout", "timeout")


# ── both ──


@pytest.mark.parametrize("library", ["orjson", "json"])
def test_result_is_written_into_its_event_as_it_was_serialised(dialect: Dialect, library: str) -> None:
    bytes_of_it = b'{"n":  1, "ids":[18446744073709551616]}'
    with without_orjson() if library == "json" else nullcontext():
        result = json_text.embed(bytes_of_it)
        report = Report(status="success", context=result if dialect is Dialect.RUST else None, response=result)
        ended = event_set(dialect=dialect, report=report, with_start=True)
        assert ended.body().count(bytes_of_it) == 1
        row, _ = ended.packed()
        assert bytes_of_it in row, "and into its row"


async def test_body_of_an_http_answer_is_told_to_the_python_plane_once() -> None:
    data = {"status_code": 200, "headers": {"server": "x"}, "url": "http://a/", "data": {"items": ["needle"], "t": "n"}}
    for answered in (data, {**data, "data": "needle"}):
        report = await results.report(command(), ToolResult.success(answered), CaseDecision(), FitRules())
        [sent] = (await tell(report)).bodies("/api/events/batch")
        assert json.dumps(sent).count("needle") == 1


async def test_abandoned_command_never_reports_its_held_start() -> None:
    at, transport = plane(accept)
    ours = emitter()
    abandoned, other = (CommandEvents(command(step=step), at, "w", ours, hold_s=0.0) for step in ("abandoned", "other"))
    abandoned.start()
    other.start()
    abandoned.abandon()
    while not transport.sent:
        await asyncio.sleep(0)
    assert [event["step"] for event in transport.bodies("/api/events/batch")[0]["events"]] == ["other", "other"]
    assert len(transport.sent) == 1
