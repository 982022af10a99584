"""A result over the event budget: stored first, named by the events then; as safe on its way as they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from noetl_worker import patience, results
from noetl_worker.adoption import Adoption
from noetl_worker.control_plane.client import ControlPlaneClient
from noetl_worker.control_plane.dialects import event_form
from noetl_worker.emitter import Emitter
from noetl_worker.errors import DocumentError
from noetl_worker.event_set import EventSet
from noetl_worker.events import CommandEvents
from noetl_worker.in_flight import InFlight
from noetl_worker.models import CaseDecision, Dialect, Exit, Fail, FitRules, ToolResult
from noetl_worker.slots import Slots
from unit.planes import URL, Ours, ScriptedTransport, answer, command, emitter, plane, rows_on_disk, settings

ROWS = {"rows": [{"i": i, "text": "ü" * 100} for i in range(2000)], "count": 2000}
STORED = {"ref": "noetl://execution/7/result/start/1", "store": "kv", "scope": "execution", "bytes": 9, "sha256": "aa"}
Script = Callable[[str, str, Any], Any]


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Emitter, "_delay_s", staticmethod(lambda tries, answer: 0.001))


def store_then_accept(*first: Any) -> Script:
    """The result store gives these answers, then a reference; events are accepted."""
    left = list(first)

    def script(method: str, path: str, body: Any) -> Any:
        if method == "PUT":
            return left.pop(0) if left else answer(200, STORED)
        if path.endswith("/claim"):
            return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    return script


def tell(
    script: Script,
    dialect: Dialect = Dialect.PYTHON,
    ours: Emitter | None = None,
    decision: CaseDecision | None = None,
    **kwargs: Any,
) -> ScriptedTransport:
    at, transport = plane(script, dialect)

    async def go() -> None:
        one = command(dialect)
        report = await results.report(one, ToolResult.success(ROWS), decision or CaseDecision(), FitRules())
        told = CommandEvents(one, at, event_form(dialect, "w-1"), ours or emitter(), hold_s=5.0, **kwargs)
        told.start()
        await told.finish(report, Ours())

    asyncio.run(go())
    return transport


def paths(transport: ScriptedTransport) -> list[str]:
    return [path for _, path, _, _ in transport.sent]


def call_done(transport: ScriptedTransport) -> Any:
    """The `call.done` of the last batch: its item."""
    batch = transport.bodies("/api/events/batch")[-1]
    return next(item for item in batch["events"] if item["name"] == "call.done")


@pytest.mark.parametrize("dialect", Dialect)
def test_result_over_the_budget_is_stored_before_the_events_that_name_it(dialect: Dialect) -> None:
    transport = tell(store_then_accept(), dialect)
    method, path, body, _ = transport.sent[0]
    assert (method, path) == ("PUT", f"/api/result/{command().execution_id}")
    assert (body["name"], body["scope"], body["source_step"]) == ("start", "execution", "start")
    assert (body["data"] if dialect is Dialect.PYTHON else body["data"]["data"]) == ROWS
    result = call_done(transport)["payload"]["result"]
    reference = result["reference"]
    assert {name: reference[name] for name in ("kind", "ref", "store", "scope")} == {
        "kind": "result_ref",
        "ref": STORED["ref"],
        "store": "kv",
        "scope": "execution",
    }
    assert (reference["meta"]["bytes"], reference["meta"]["sha256"]) == (9, "aa")
    assert "expires_at" not in reference, "the store named none"
    if dialect is Dialect.PYTHON:
        assert call_done(transport)["meta"]["state_ref"] == STORED["ref"]
        assert result["context"] == reference["extracted"]
    else:
        assert result["context"] == {"data": {"_ref": STORED["ref"]}, "command_id": "7:start:9"}


def test_set_whose_result_and_events_are_refused_leaves_its_slot_once(tmp_path: Path) -> None:
    ours, slots, free = emitter(tmp_path), Slots(1), []
    slots.take()
    left = [answer(425, {}), answer(200, STORED), answer(425, {})]

    def script(method: str, path: str, body: Any) -> Any:
        free.append(slots.free())
        return left.pop(0) if left else answer(202, {"event_ids": [5]})

    tell(script, ours=ours, outside=slots.waiting)
    assert free == [0, 1, 1, 1]
    assert slots.free() == 0
    ours.outbox.close()


@pytest.mark.parametrize("decision", [CaseDecision(0, Fail("too many")), CaseDecision(0, Exit("done", {"n": 1}))])
def test_case_that_ends_the_command_keeps_the_reference(decision: CaseDecision) -> None:
    transport = tell(store_then_accept(), decision=decision)
    events = transport.bodies("/api/events/batch")[-1]["events"]
    assert events[-1]["payload"]["result"]["reference"]["ref"] == STORED["ref"]
    assert not any("reference" in str(item.get("error")) for item in events)


@pytest.mark.parametrize("dialect", Dialect)
def test_result_that_the_store_does_not_take_yet_is_on_disk_and_out_of_its_slot(
    tmp_path: Path, dialect: Dialect
) -> None:
    ours, slots, seen = emitter(tmp_path), Slots(1), []
    slots.take()
    inner = store_then_accept(*[answer(425, {})] * 3)  # 503 would make the gate wait as well

    def script(method: str, path: str, body: Any) -> Any:
        seen.append((method, rows_on_disk(tmp_path), slots.free()))
        return inner(method, path, body)

    transport = tell(script, dialect, ours, outside=slots.waiting)
    assert seen[:4] == [("PUT", 0, 0), ("PUT", 1, 1), ("PUT", 1, 1), ("PUT", 1, 1)]
    assert call_done(transport)["payload"]["result"]["reference"]["ref"] == STORED["ref"]
    assert ours.outbox.is_empty
    assert slots.free() == 0, "it is back in its slot"
    ours.outbox.close()


@pytest.mark.parametrize("dialect", Dialect)
def test_result_of_a_process_that_died_before_it_was_stored_is_stored_and_told_by_the_next(
    tmp_path: Path, dialect: Dialect
) -> None:
    dead = emitter(tmp_path)

    async def die() -> None:
        at, _ = plane(lambda method, path, body: answer(425, {}), dialect)
        one = command(dialect)
        report = await results.report(one, ToolResult.success(ROWS), CaseDecision(), FitRules())
        told = CommandEvents(one, at, event_form(dialect, "w-1"), dead, hold_s=5.0)
        told.start()
        telling = asyncio.ensure_future(told.finish(report, Ours()))
        while dead.outbox.is_empty:
            await asyncio.sleep(0)
        telling.cancel()
        await asyncio.wait({telling})

    asyncio.run(die())
    dead.outbox.close()
    transport, ours = ScriptedTransport(store_then_accept()), emitter(tmp_path)

    async def go() -> None:
        adoption = Adoption(ControlPlaneClient(transport, settings()), ours, InFlight())
        adoption.look()
        while not ours.outbox.is_empty:
            await asyncio.sleep(0.001)
        await adoption.stop()

    asyncio.run(go())
    ours.outbox.close()
    put = next(body for method, _, body, _ in transport.sent if method == "PUT")
    assert (put["data"] if dialect is Dialect.PYTHON else put["data"]["data"]) == ROWS
    assert call_done(transport)["payload"]["result"]["reference"]["ref"] == STORED["ref"]
    assert "/claim" in paths(transport)[0], "whose it is is asked first"


@pytest.mark.parametrize(
    ("refusals", "tries"),
    [
        ([answer(400, {"detail": "Invalid store tier"})], 1),
        ([answer(413, b"length limit exceeded")], 1),
        ([answer(404, {"detail": "Not Found"})] * 2, 2),  # both routes of wire.md T-10
    ],
    ids=["refused", "too large", "no result store"],
)
def test_result_that_the_store_refuses_is_told_as_a_preview_that_says_so(refusals: list[Any], tries: int) -> None:
    transport = tell(store_then_accept(*refusals))
    assert [method for method, *_ in transport.sent].count("PUT") == tries
    payload = call_done(transport)["payload"]
    context = payload["result"]["context"]
    assert context["_truncated"] is True
    assert context["_bytes"] > 200_000
    assert str(refusals[0].status) in context["_error"]
    assert "reference" not in payload["result"]
    assert payload["response"] == context
    assert "error" not in payload, "the command succeeded"


def test_broken_store_is_asked_for_so_long_and_then_it_is_a_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))
    inner = store_then_accept(*[answer(500, {"detail": "store"})] * 100)

    def script(method: str, path: str, body: Any) -> Any:
        now[0] += 2.0
        return inner(method, path, body)

    transport = tell(script)
    tries = [method for method, *_ in transport.sent].count("PUT")
    assert tries == pytest.approx(patience.DOUBT_S / 2, abs=2)
    assert "500" in call_done(transport)["payload"]["result"]["context"]["_error"]


def test_each_upload_has_a_mark_of_its_own() -> None:
    """Random, so that no text of a playbook is taken for one."""
    assert len({results_of().upload.mark for _ in range(50)}) == 50


def results_of() -> Any:
    return asyncio.run(results.report(command(), ToolResult.success(ROWS), CaseDecision(), FitRules()))


def made_set(report: Any) -> EventSet:
    at, _ = plane(lambda *_: answer(200, {}))
    told = CommandEvents(command(), at, event_form(Dialect.PYTHON, "w-1"), emitter(), hold_s=5.0)
    kept: list[EventSet] = []

    async def deliver(plane: Any, event_set: EventSet, *rest: Any) -> None:
        kept.append(event_set)

    told._emitter.deliver = deliver  # type: ignore[method-assign]
    asyncio.run(told.finish(report, Ours()))
    return kept[0]


def test_row_of_a_stored_result_is_read_as_it_was_written() -> None:
    report = results_of()
    made = made_set(report)
    again = EventSet.unpacked(*made.packed())
    assert again.store is not None
    assert json.loads(again.store.upload.data) == json.loads(report.upload.data)
    assert again.packed() == made.packed()
    assert not again.requests[0].was_tried, "the events were not on their way"
    assert again.server_url == URL


def test_row_of_a_later_version_is_read_without_what_it_adds_to_the_upload() -> None:
    row, data = made_set(results_of()).packed()
    whole = json.loads(row)
    whole["store"]["added"] = 1
    assert EventSet.unpacked(json.dumps(whole).encode(), data).store is not None


def test_row_without_its_data_is_no_row() -> None:
    row, _ = made_set(results_of()).packed()
    with pytest.raises(DocumentError):
        EventSet.unpacked(row, None)


def test_answer_without_a_reference_is_not_the_stores() -> None:
    transport = tell(store_then_accept(answer(200, {"status": "ok"})))
    assert [method for method, *_ in transport.sent].count("PUT") == 2
    assert call_done(transport)["payload"]["result"]["reference"]["ref"] == STORED["ref"]


def test_preview_of_the_rust_plane_names_its_command() -> None:
    """What the plane counts loop items by (wire.md 9.3, item 8)."""
    transport = tell(store_then_accept(answer(413, b"too large")), Dialect.RUST)
    assert call_done(transport)["payload"]["result"]["context"]["command_id"] == "7:start:9"


def test_failure_that_refers_to_no_result_does_not_wait_for_the_store() -> None:
    transport = tell(store_then_accept(), Dialect.RUST, decision=CaseDecision(0, Fail("too many")))
    assert [method for method, *_ in transport.sent].count("PUT") == 0


def test_store_that_is_away_holds_up_no_claim() -> None:
    at, _ = plane(lambda method, *_: answer(503 if method == "PUT" else 200, {}, retry_after="30"))

    async def go() -> None:
        await at.store_result(7, "start", b"1", source_step="start")
        assert (await at.claim(7, "w")).status == 200

    asyncio.run(go())
    assert at.client.open_share() == 1.0


@pytest.mark.parametrize("is_stored", [True, False])
def test_result_is_let_go_when_the_store_has_answered(is_stored: bool) -> None:
    """The events may still wait for hours, and the report with them."""
    report = results_of()
    made = made_set(report)
    if is_stored:
        made.accepted(STORED)
    else:
        made.not_stored("refused")
    assert report.upload.data == b""
    assert made.requests
