"""An end that the plane issues the next commands in: never cut off, and in no other's way (Rust plane)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.errors import MaybeProcessed
from noetl_worker.models import Dialect, Report
from noetl_worker.models.disposition import Answer
from noetl_worker.models.slots import Slots
from noetl_worker.observability.series import REGISTRY
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.transport.transport import Body, Response
from noetl_worker.worker.recovery.adoption import Adoption
from noetl_worker.worker.recovery.execution_watch import ExecutionWatch
from noetl_worker.worker.worker import Worker
from unit.planes import ENVELOPE, URL, Ours, ScriptedTransport, answer, command, emitter, plane, rows_on_disk, settings
from unit.reports import OK
from unit.test_handover import Beats, Gated, answered, begun, delivery, execution, grace_over, script_for, terminal

FAILED = Report(status="error", context={"error": "boom"}, response={"error": "boom"}, error="boom")
RECORDED = {
    row["case"]: row["resp"]
    for row in map(
        json.loads,
        (Path(__file__).parents[1] / "compat/samples/rust-control-plane-cases.jsonl").read_text("utf-8").splitlines(),
    )
    if row["case"].endswith("-execution")
}
anyio_backend = virtual_time.anyio_backend
STUCK = RECORDED["clock-behind-execution"]
"""RUNNING for ever: its command has ended, and none followed."""


class Held(ScriptedTransport):
    """Keeps the end of a command until it is let go, and says how long each request might have taken."""

    def __init__(self, script: Any = None) -> None:
        super().__init__(script or (lambda *_: answer(200, {"event_id": 7, "event_ids": [5]})))
        self.limits: dict[str, float | None] = {}
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.says: Any = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        said = await super().send(method, url, headers, body, timeout_s)  # type: ignore[arg-type]
        sent = self.sent[-1][2]
        kind = sent.get("event_type") if isinstance(sent, dict) and "event_type" in sent else url.removeprefix(URL)
        self.limits[str(kind)] = timeout_s
        if kind in ("command.completed", "command.failed"):
            self.reached.set()
            await self.go.wait()
            if isinstance(self.says, Exception):
                raise self.says
            return self.says or said
        return said


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"noetl_worker_{name}_total") or 0.0


def told_by(
    transport: ScriptedTransport, ours: Emitter, report: Report = OK, **free_slot: Any
) -> tuple[Plane, asyncio.Task[None]]:
    at = Plane(ControlPlaneClient(transport, settings()), URL, Dialect.RUST)
    events = CommandEvents(command(Dialect.RUST), at, "w-1", ours, hold_s=5.0, **free_slot)
    events.start()
    return at, asyncio.ensure_future(events.finish(report, Ours()))


@pytest.mark.parametrize("report", [OK, FAILED], ids=["completed", "failed"])
async def test_end_has_no_limit_and_no_place_at_the_gate_and_may_be_slow(report: Report) -> None:
    transport = Held()
    at, telling = told_by(transport, emitter(), report)
    await transport.reached.wait()
    assert transport.limits.pop("/api/events/batch", None) == settings().http_timeout_s
    assert list(transport.limits.values())[-1] is None
    assert at.gate.inside == 0
    full = at.gate.limit()
    await asyncio.sleep(500.0)
    transport.go.set()
    await telling
    assert at.gate.limit() == full
    for took_s in (0.1, 20.0):
        at.gate.answered(took_s)
    assert at.gate.limit() < full, "twenty seconds are still far more than usual"


@pytest.mark.parametrize("is_on_disk", [True, False])
async def test_slow_end_leaves_its_slot_on_disk_or_not(is_on_disk: bool, tmp_path: Path) -> None:
    ours, transport, freed = emitter(tmp_path if is_on_disk else None), Held(), asyncio.Event()
    slots = Slots(1, on_free=freed.set)
    slots.take()
    _, telling = told_by(transport, ours, free_slot=slots.waiting)
    await freed.wait()
    assert slots.free() == 1
    assert rows_on_disk(tmp_path) == (1 if is_on_disk else 0)
    transport.go.set()
    await telling
    assert (slots.free(), rows_on_disk(tmp_path)) == (0, 0)
    ours.outbox.close()


# ── a stop ──


@pytest.mark.parametrize("worker_id", ["stable", ""], ids=["with WORKER_ID", "without"])
@pytest.mark.parametrize("is_hard", [False, True], ids=["drain", "hard stop"])
async def test_stop_waits_for_an_end_until_the_hard_stop(is_hard: bool, worker_id: str) -> None:
    transport = Held(script_for(Dialect.RUST, {}, "noop"))
    whole = execution(transport, Dialect.RUST, Beats(), WORKER_ID=worker_id)
    running, progress = begun(whole, delivery(Dialect.RUST))
    await transport.reached.wait()
    grace_over(whole, progress)
    done, _ = await asyncio.wait({running}, timeout=600)
    assert not done
    assert list(whole.services.emitter.issuing.values()) == [True]
    if is_hard:
        progress.cancel()
    else:
        transport.go.set()
    disposition = await answered(running)
    transport.go.set()
    await whole.services.registry.aclose()
    assert disposition.answer is (Answer.NAK if is_hard else Answer.ACK)
    assert terminal(transport) == ["command.completed"], "it is not told twice"


async def test_command_that_is_told_as_interrupted_waits_for_its_end_too() -> None:
    transport = Held(script_for(Dialect.RUST, {}, "noop"))
    claim = Gated(transport.script, 1)
    whole = execution(claim, Dialect.RUST, Beats(), WORKER_ID="")
    giving, progress = begun(whole, delivery(Dialect.RUST))
    await claim.reached.wait()
    grace_over(whole, progress)
    whole.client.transport = transport
    claim.go.set()
    await transport.reached.wait()
    done, _ = await asyncio.wait({giving}, timeout=600)
    assert not done
    transport.go.set()
    await whole.services.registry.aclose()
    assert (await answered(giving)).answer is Answer.ACK


class Draining:
    """A worker whose one delivery has its end with the plane when the drain begins."""

    def __init__(self) -> None:
        self.worker = Worker(settings(NOETL_WORKER_DRAIN_TIMEOUT_S="0"))
        self.is_alive = True
        self.over = asyncio.Event()

    async def drain(self) -> bool:
        ours = self.worker.emitter
        ours.issuing["w-1/7"] = True

        async def handle() -> None:
            try:
                await self.over.wait()
            finally:
                del ours.issuing["w-1/7"]

        progress = Progress()
        progress.enter(Stage.REPORTING, is_issuing=lambda: bool(ours.issuing))
        task = progress.task = asyncio.ensure_future(handle())
        self.worker.deliveries.tasks[task] = progress
        task.add_done_callback(self.worker.deliveries.tasks.pop)
        puller: Any = type("Puller", (), {"pause": lambda *_: None})()
        keepalive: Any = type("Keepalive", (), {"is_alive": lambda _: self.is_alive})()
        return await self.worker.deliveries.drain(puller, keepalive)


@pytest.mark.parametrize(
    ("end", "is_cut_off"),
    [
        (lambda one: one.over.set(), False),
        (lambda one: one.worker.request_stop(), True),
        (lambda one: setattr(one, "is_alive", False), True),
    ],
    ids=["it is answered", "second signal", "the keepalive has ended"],
)
async def test_drain_ends_when_the_last_end_is_answered_or_nothing_may_be_waited_for(
    end: Callable[[Draining], None], is_cut_off: bool
) -> None:
    one = Draining()
    one.worker.request_stop()
    draining = asyncio.ensure_future(one.drain())
    done, _ = await asyncio.wait({draining}, timeout=600)
    assert not done
    end(one)
    assert await draining is is_cut_off


# ── what was cut off is looked after ──


async def watched(answers: list[Any]) -> None:
    """By a watch that sees these answers, one a minute."""
    at, _ = plane(lambda *_: answers.pop(0), Dialect.RUST)
    watch = ExecutionWatch()
    event_set: Any = type("Set", (), {"execution_id": STUCK["execution_id"], "log_ids": lambda _: {"step": "start"}})()
    watch.watch(at, event_set)
    watch.watch(at, event_set)  # one line an execution
    await asyncio.sleep(600)


async def looked_at(answers: list[Any]) -> tuple[list[Any], float]:
    """The log lines, and what it counts."""
    before = counted("executions_standing_still")
    with capture_logs() as lines:
        await watched(answers)
    return lines, counted("executions_standing_still") - before


async def test_execution_without_a_next_command_is_said_once() -> None:
    lines, count = await looked_at([answer(503, {}), answer(200, STUCK), answer(200, STUCK)])
    assert [line["event"] for line in lines] == ["execution_stands_still"]
    assert count == 1


ISSUED: Any = {"event_id": 9, "event_type": "command.issued", "node_name": "next", "result": None}
LATER = {**STUCK, "events": [*STUCK["events"], ISSUED]}
ENDED = {name: [RECORDED[name]] for name in ("batch-execution", "fail-execution", "no-meta-execution")}
SEEN = {**ENDED, "goes on between two looks": [STUCK, LATER, LATER, LATER, {**LATER, "status": "COMPLETED"}]}


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
async def test_execution_that_has_ended_or_goes_on_is_not_said_to_stand_still(seen: list[Any]) -> None:
    assert await looked_at([answer(200, one) for one in seen]) == ([], 0)


async def test_execution_that_the_plane_does_not_show_is_said_so() -> None:
    lines, count = await looked_at([answer(404, {"error": "no route"})])
    assert [line["event"] for line in lines] == ["execution_check_failed"]
    assert count == 0


LOOK: Final = f"/api/executions/{ENVELOPE.execution_id}"


async def test_end_that_was_cut_off_and_stored_is_looked_after() -> None:
    transport = Held()
    _, telling = told_by(transport, emitter())
    transport.says = MaybeProcessed("connection reset")
    transport.go.set()
    await transport.reached.wait()
    transport.says = answer(500, {"error": "duplicate key value violates unique constraint"})
    await telling
    await asyncio.sleep(1)
    assert transport.sent[-1][:2] == ("GET", LOOK)


async def test_end_that_a_hard_stop_cut_off_is_asked_for_at_the_next_start(ours: Emitter, tmp_path: Path) -> None:
    held = Held()
    _, telling = told_by(held, ours)
    await held.reached.wait()
    telling.cancel()
    await asyncio.wait({telling})
    ours.outbox.close()
    assert rows_on_disk(tmp_path) == 1
    dropped = counted("outcomes_dropped")
    transport = ScriptedTransport(lambda *_: answer(409, {"error": "Command already reached terminal state"}))
    ours = emitter(tmp_path)
    adoption = Adoption(ControlPlaneClient(transport, settings()), ours, InFlight())
    adoption.adopt()
    await asyncio.sleep(600)
    ours.outbox.close()
    assert [path for _, path, _, _ in transport.sent] == [f"/api/commands/{ENVELOPE.event_id}/claim", LOOK]
    assert counted("outcomes_dropped") == dropped, "it was told"
    assert rows_on_disk(tmp_path) == 0
