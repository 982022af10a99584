"""A result over the event budget: stored first, named by the events then; as safe on its way as they are.

What the store of the Python plane does not take goes to it whole.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

import loops
import virtual_time
from compat.uncut import uncut
from noetl_worker.errors import DocumentError, MaybeProcessed, NotSent
from noetl_worker.models import CaseDecision, Dialect, Exit, Fail
from noetl_worker.models.slots import Slots
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane import patience
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.python.store import has_long_word, unpacked
from noetl_worker.worker.recovery.adoption import Adoption
from unit import planes, reports
from unit.planes import URL, After, Ours, ScriptedTransport, answer, command, emitter, plane, rows_on_disk, settings
from unit.reports import STORED, accept, call_done, event_of, puts, report_of

anyio_backend = virtual_time.anyio_backend

ROWS = {"rows": [{"i": i, "text": "ü" * 100} for i in range(2000)], "count": 2000}


def store_then_accept(*first: Any) -> planes.Script:
    """The result store gives these answers, then a reference; events are accepted."""
    left = list(first)

    def script(method: str, path: str, body: Any) -> Any:
        if method == "PUT" and left:
            return left.pop(0)
        if path.endswith("/claim"):
            return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})
        return accept(method, path, body)

    return script


async def tell(
    script: planes.Script,
    dialect: Dialect = Dialect.PYTHON,
    ours: Emitter | None = None,
    decision: CaseDecision | None = None,
    kind: str = "noop",
    data: Any = ROWS,
    **told: Any,
) -> ScriptedTransport:
    report = await report_of(data, dialect, decision, kind=kind)
    return await reports.tell(report, script, dialect=dialect, teller=ours, kind=kind, **told)


class InSlot:
    """A worker with one slot, in which its command is, and an outbox; what it had of both at each request."""

    def __init__(self, directory: Path, script: planes.Script) -> None:
        self.emitter, self._slots, self._directory, self._script = emitter(directory), Slots(1), directory, script
        self.seen: list[tuple[str, int, int]] = []
        """(method, rows on disk, free slots)"""
        self._slots.take()

    def _look(self, method: str, path: str, body: Any) -> Any:
        self.seen.append((method, rows_on_disk(self._directory), self._slots.free()))
        return self._script(method, path, body)

    async def tell(self, dialect: Dialect = Dialect.PYTHON) -> ScriptedTransport:
        """All is told at the end, and the command back in its slot."""
        transport = await tell(self._look, dialect, self.emitter, free_slot=self._slots.waiting)
        assert (self.emitter.outbox.is_empty, self._slots.free()) == (True, 0)
        self.emitter.outbox.close()
        return transport


def paths(transport: ScriptedTransport) -> list[str]:
    return [path for _, path, _, _ in transport.sent]


async def test_result_over_the_budget_is_stored_before_the_events_that_name_it(dialect: Dialect) -> None:
    transport = await tell(store_then_accept(), dialect)
    method, path, body, _ = transport.sent[0]
    assert (method, path) == ("PUT", f"/api/result/{command().execution_id}")
    assert (body["name"], body["scope"], body["source_step"]) == ("start", "execution", "start")
    stored = unpacked(body["data"])
    assert (json.loads(stored) if stored is not None else body["data"]["data"]) == ROWS
    result = call_done(transport)["result"]
    reference = result["reference"]
    assert {name: reference[name] for name in ("kind", "ref", "store", "scope")} == {
        "kind": "result_ref",
        "ref": STORED["ref"],
        "store": "kv",
        "scope": "execution",
    }
    assert (reference["meta"]["bytes"], reference["meta"]["sha256"]) == (9, "aa")
    assert "expires_at" not in reference, "the store named none"
    assert len(json.dumps(reference["extracted"])) <= 4096
    if dialect is Dialect.PYTHON:
        assert event_of("call.done", transport)["meta"]["state_ref"] == STORED["ref"]
        assert result["context"] == reference["extracted"]
    else:
        assert result["context"] == {"data": {"_ref": STORED["ref"]}, "command_id": "7:start:9"}
        assert "response" not in call_done(transport), "the reference alone"


async def test_variables_of_a_stored_list_of_tasks_are_in_the_event_for_the_rust_plane() -> None:
    """Run on 3.54.0 and 3.83.1: from its store it does not take them."""
    data = {"fetch": ROWS, "_context_updates": {"ctx.page": 2, "ctx.password": "hunter22"}}
    transport = await tell(store_then_accept(), Dialect.RUST, kind="task_sequence", data=data)
    updates = call_done(transport)["result"]["reference"]["extracted"]["_context_updates"]
    assert updates == {"ctx.page": 2, "ctx.password": "[REDACTED]"}


async def test_variables_that_an_event_has_no_room_for_are_named_in_a_warning() -> None:
    data = {"fetch": ROWS, "_context_updates": {"ctx.all": ROWS}}
    transport = await tell(store_then_accept(), Dialect.RUST, kind="task_sequence", data=data)
    last = next(body for _, path, body, _ in transport.sent if path == "/api/events")
    assert "later steps do not get the variables" in last["context"]["warnings"][0]


async def test_a_second_warning_of_a_result_leaves_the_first() -> None:
    data = {"fetch": {**ROWS, "note": "a\0b"}, "_context_updates": {"ctx.all": ROWS}}
    failed = ToolResult(ToolStatus.ERROR, data, error=ToolFailure("no"))
    report = await report_of(failed, Dialect.RUST, kind="task_sequence")
    lost, null = report.notes["warnings"]
    assert "later steps do not get the variables" in lost
    assert "U+0000" in null


SAMPLES = Path(__file__).parents[1] / "compat/samples/values"
RECORDED = [json.loads(line) for line in (SAMPLES / "large-sequences-python.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("anyio_backend", [loops.STANDARD], ids=["python's process"])
@pytest.mark.parametrize("exchange", RECORDED, ids=lambda exchange: exchange["name"])
@pytest.mark.parametrize("refusals", [(), (answer(413, {"detail": "too large"}),)], ids=["stored", "not stored"])
async def test_large_task_sequence_tells_the_python_plane_its_tasks_and_what_they_set(
    exchange: Any, refusals: Any
) -> None:
    recorded = uncut(exchange["req"]["events"][0]["payload"]["response"])
    del recorded["metrics"]  # of its own, and read by nobody
    assert len(json.dumps(recorded)) > 102_400
    transport = await tell(store_then_accept(*refusals), kind="task_sequence", data=recorded)
    payload = call_done(transport)
    assert payload["response"] == recorded
    assert ("reference" in payload["result"]) is (not refusals)
    others = transport.bodies("/api/events/batch")[-1]["events"][3:]
    assert not any("response" in item["payload"] for item in others)


@pytest.mark.parametrize("decision", [CaseDecision(0, Fail("too many")), CaseDecision(0, Exit("done", {"n": 1}))])
async def test_case_that_ends_the_command_keeps_the_reference(decision: CaseDecision) -> None:
    transport = await tell(store_then_accept(), decision=decision)
    events = transport.bodies("/api/events/batch")[-1]["events"]
    assert events[-1]["payload"]["result"]["reference"]["ref"] == STORED["ref"]
    assert not any("reference" in str(item.get("error")) for item in events)


async def test_result_that_the_store_does_not_take_yet_is_on_disk_and_out_of_its_slot(
    tmp_path: Path, dialect: Dialect
) -> None:
    worker = InSlot(tmp_path, store_then_accept(*[answer(425, {})] * 3))  # 503 would make the gate wait as well
    transport = await worker.tell(dialect)
    assert worker.seen[:4] == [("PUT", 0, 0), ("PUT", 1, 1), ("PUT", 1, 1), ("PUT", 1, 1)]
    assert call_done(transport)["result"]["reference"]["ref"] == STORED["ref"]


async def test_result_of_a_process_that_died_before_it_was_stored_is_told_by_the_next(
    tmp_path: Path, dialect: Dialect
) -> None:
    dead = emitter(tmp_path)
    at, _ = plane(lambda method, path, body: answer(425, {}), dialect)
    one = command(dialect)
    report = await report_of(ROWS, dialect)
    told = CommandEvents(one, at, "w-1", dead, hold_s=5.0)
    told.start()
    telling = asyncio.ensure_future(told.finish(report, Ours()))
    while dead.outbox.is_empty:
        await asyncio.sleep(0)
    telling.cancel()
    await asyncio.wait({telling})
    dead.outbox.close()
    transport, ours = ScriptedTransport(store_then_accept()), emitter(tmp_path)
    adoption = Adoption(ControlPlaneClient(transport, settings()), ours, InFlight())
    adoption.adopt()
    while not ours.outbox.is_empty:
        await asyncio.sleep(0.001)
    await adoption.stop()
    ours.outbox.close()
    payload = call_done(transport)
    if dialect is Dialect.PYTHON:  # the dead one's PUT may still run there
        assert (puts(transport), payload["response"]) == ([], ROWS)
    else:
        assert puts(transport)[0]["data"]["data"] == ROWS
        assert payload["result"]["reference"]["ref"] == STORED["ref"]
    assert "/claim" in paths(transport)[0], "whose it is is asked first"


REFUSALS = {
    "refused": answer(400, {"detail": "Invalid store tier"}),
    "too large": answer(413, b"length limit exceeded"),
    "no result store": answer(404, {"detail": "Not Found"}),
}


def failed_with(transport: ScriptedTransport, text: str) -> None:
    """Both events of the failure say so and of which command, by which the plane counts loop items
    (protocol/events.md#rust-plane), and there is no other end."""
    (batch,), (single,) = transport.bodies("/api/events/batch"), transport.bodies("/api/events")
    assert [item["name"] for item in batch["events"]] == ["command.started", "call.error"]
    assert (single["event_type"], single["status"]) == ("command.failed", "FAILED")
    error = batch["events"][-1]
    assert error["payload"]["command_id"] == error["meta"]["command_id"] == "7:start:9"
    for told in (error["payload"], single["context"]):
        assert re.search(rf"the result store of the control plane does not take it: .*{text}", told["error"], re.S)
        assert told["error_kind"] == "resource"
        assert "result" not in told


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_result_that_the_store_refuses_is_told_whole_to_the_python_plane(refusal: Any) -> None:
    transport = await tell(store_then_accept(refusal, refusal))
    assert len(puts(transport)) == (2 if refusal.status == 404 else 1), "a store may be in one of two places"
    payload = call_done(transport)
    assert payload["response"] == ROWS
    assert "reference" not in payload["result"]
    assert "state_ref" not in event_of("call.done", transport)["meta"]
    assert "error" not in payload, "the command succeeded"


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_result_that_the_store_of_the_rust_plane_refuses_fails_its_command(refusal: Any) -> None:
    """Its event has no room for the result, and a success with a preview is a wrong value that nobody sees."""
    transport = await tell(store_then_accept(refusal), Dialect.RUST)
    assert len(puts(transport)) == 1
    failed_with(transport, str(refusal.status))


async def test_broken_store_is_asked_for_so_long(dialect: Dialect) -> None:
    inner = store_then_accept(*[answer(500, {"detail": "store"})] * 100)
    most_s = patience.UNCERTAIN_S if dialect is Dialect.PYTHON else patience.STORE_UNCERTAIN_S

    def script(method: str, path: str, body: Any) -> Any:
        return After(most_s / 15, inner(method, path, body))

    transport = await tell(script, dialect)
    tries = len(puts(transport))
    assert tries == pytest.approx(15, abs=2)
    if dialect is Dialect.PYTHON:
        assert call_done(transport)["response"] == ROWS
    else:
        failed_with(transport, "500")


@pytest.mark.parametrize(("status", "times"), [(500, 7), (503, 1)])
async def test_outage_of_the_store_turns_no_result_into_anything_else(tmp_path: Path, status: int, times: int) -> None:
    """Minutes of it: the outcome waits on disk, out of its slot, and is told by reference."""
    inner = store_then_accept(*[answer(status, {"detail": "store"}, retry_after="0")] * times)
    worker = InSlot(tmp_path, lambda *given: After(100.0, inner(*given)))
    transport = await worker.tell(Dialect.RUST)
    on_its_way = [seen for seen in worker.seen if seen[0] == "PUT"]
    assert set(on_its_way) == {("PUT", 0, 0), ("PUT", 1, 1)}, "the first try, and then all the others"
    result = call_done(transport)["result"]
    assert (result["status"], result["reference"]["ref"]) == ("success", STORED["ref"])
    assert "_truncated" not in json.dumps(result["context"])


@pytest.mark.parametrize(
    "cut", [MaybeProcessed("no complete answer in 46.2 s"), answer(504, b"gateway timeout")], ids=["no answer", "proxy"]
)
async def test_put_that_the_python_plane_may_still_be_at_is_not_repeated(dialect: Dialect, cut: Any) -> None:
    """A second one would hold up everybody for as long again: its store works in its event loop."""
    transport = await tell(store_then_accept(cut), dialect)
    assert len(puts(transport)) == (1 if dialect is Dialect.PYTHON else 2)
    if dialect is Dialect.PYTHON:
        assert call_done(transport)["response"] == ROWS


@pytest.mark.parametrize(
    "first",
    [
        (NotSent("connection refused"), answer(503, {"detail": "db"}, retry_after="0")),
        (answer(200, {"status": "ok"}),),
    ],
    ids=["it never left, and the plane is back", "an answer without a reference is not the store's"],
)
async def test_put_that_has_stored_nothing_is_sent_again(first: tuple[Any, ...]) -> None:
    transport = await tell(store_then_accept(*first))
    assert len(puts(transport)) == len(first) + 1
    assert call_done(transport)["result"]["reference"]["ref"] == STORED["ref"]


@pytest.mark.parametrize("at", [0, 1, 1_999, 2_000, 3_333])
@pytest.mark.parametrize(("one", "is_long"), [("x", True), (".", True), ("é", False), ("x_", False), ("xx/x", False)])
def test_long_word_is_found_wherever_it_begins(at: int, one: str, is_long: bool) -> None:
    """Words are of the characters of a link's scheme."""

    def text(length: int) -> bytes:
        return (b'"a", ' * 8_000)[:at] + b'" ' + (one * length)[:length].encode() + b'" ' + b"tail " * 100

    assert has_long_word(text(2_000)) is is_long
    assert not has_long_word(text(1_999))


async def test_deadline_of_a_put_grows_with_what_the_python_plane_has_to_look_through() -> None:
    at, transport = plane(store_then_accept())
    for size in (100_000, 1_000_000):
        await at.store_result(7, "start", b'"%s"' % (b"a " * (size // 2)), source_step="start")
    sent = zip(transport.sent, transport.timeouts_s, strict=True)
    limits = [timeout_s for (method, *_), timeout_s in sent if method == "PUT"]
    # 20 kB of unbroken text take 0.8 s at each of two looks: 50 such texts a megabyte
    assert limits[0] > 5 * 1.6
    assert limits[1] > 50 * 1.6


async def made_set(report: Any, dialect: Dialect = Dialect.PYTHON) -> EventSet:
    kept: list[EventSet] = []

    class Keeps(Emitter):
        async def deliver(self, plane: Any, event_set: EventSet, *rest: Any) -> None:
            kept.append(event_set)

    at, _ = plane(lambda *_: answer(200, {}), dialect)
    usual = emitter()
    await CommandEvents(command(dialect), at, "w-1", Keeps(usual.outcomes, usual.outbox), hold_s=5.0).finish(
        report, Ours()
    )
    return kept[0]


async def test_row_of_a_stored_result_is_read_as_it_was_written() -> None:
    report = await report_of(ROWS)
    made = await made_set(report)
    again = EventSet.unpacked(*made.packed())
    assert again.report.upload is not None
    assert json.loads(again.report.upload.data) == json.loads(report.upload.data)
    assert again.packed() == made.packed()
    assert again.was_tried, "it may still be with the store"
    again.accepted(STORED)
    assert not again.was_tried, "the events were not on their way"
    assert again.server_url == URL


async def test_row_is_read_without_what_a_later_worker_adds_to_it_and_to_its_upload() -> None:
    row, data = (await made_set(await report_of(ROWS))).packed()
    whole = json.loads(row)
    whole["added"] = whole["report"]["upload"]["added"] = 1
    assert EventSet.unpacked(json.dumps(whole).encode(), data).report.upload is not None


async def test_row_without_its_data_is_no_row() -> None:
    row, _ = (await made_set(await report_of(ROWS))).packed()
    with pytest.raises(DocumentError):
        EventSet.unpacked(row, None)


async def test_failure_of_a_result_that_is_not_stored_is_one_in_the_outbox_too() -> None:
    made = await made_set(await report_of(ROWS, Dialect.RUST), Dialect.RUST)
    made.not_stored("refused")
    again = EventSet.unpacked(*made.packed())
    assert [part.last for part in again.requests] == ["call.error", "command.failed"]
    assert (again.report.error, again.report.upload) == (made.report.error, None)


async def test_failure_that_refers_to_no_result_does_not_wait_for_the_store() -> None:
    transport = await tell(store_then_accept(), Dialect.RUST, decision=CaseDecision(0, Fail("too many")))
    assert len(puts(transport)) == 0


async def test_store_that_is_away_holds_up_no_claim() -> None:
    at, _ = plane(lambda method, *_: answer(503 if method == "PUT" else 200, {}, retry_after="30"))
    await at.store_result(7, "start", b"1", source_step="start")
    assert (await at.claim(7, "w")).status == 200
    assert at.client.servers.capacity_fraction() == 1.0


@pytest.mark.parametrize("is_stored", [True, False])
async def test_result_is_let_go_when_the_store_has_answered(is_stored: bool) -> None:
    """The events may still wait for hours, and the report with them."""
    report = await report_of(ROWS)
    made = await made_set(report)
    if is_stored:
        made.accepted(STORED)
    else:
        made.not_stored("refused")
    assert report.upload is None
    assert made.is_open
