"""A stop at every moment of a command: at most one outcome, and always one answer to JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import virtual_time
from noetl_worker.errors import ClaimLost, NotSent
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.models.disposition import Answer, Disposition
from noetl_worker.models.slots import Slots
from noetl_worker.models.stopping import StopLevel
from noetl_worker.pipeline.command.claimed_command import WorkerServices
from noetl_worker.pipeline.command.handover import ClaimOwnership
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.stages import Progress
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.transport.transport import Response
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.recovery.adoption import Adoption
from unit.outboxes import event_set, left_behind
from unit.planes import ENVELOPE, URL, ScriptedTransport, answer, emitter, plane, settings

anyio_backend = virtual_time.anyio_backend

COMMAND_ID = {Dialect.PYTHON: ENVELOPE.command_id, Dialect.RUST: "7:start:9"}


@dataclass
class Beats:
    expired: bool = False

    def is_expired(self, reply: str, now: float) -> bool:
        return self.expired


class Delivery:
    reply, subject, stream_sequence, num_delivered, tries, received_at = "r", "noetl.commands", 1, 1, 1, 0.0
    stored_at = 0.0

    def __init__(self, data: bytes) -> None:
        self.data = data

    def age_s(self) -> float:
        return 1.0


class Gated(ScriptedTransport):
    """Holds the k-th request of the command until it is let go."""

    def __init__(self, script: Any, hold: int) -> None:
        super().__init__(script)
        self.hold, self.reached, self.go = hold, asyncio.Event(), asyncio.Event()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Response:
        said = await super().send(method, url, headers, body, timeout_s)
        if len(self.sent) == self.hold:
            self.reached.set()
            await self.go.wait()
        return said


def script_for(dialect: Dialect, config: Mapping[str, Any], action: str, *later_claims: Any) -> Any:
    """A plane whose first claim gives the command, and so do those after `later_claims`."""
    ids = {"execution_id": ENVELOPE.execution_id, "event_id": ENVELOPE.event_id, "node_name": "start"}
    context, meta = {"tool_config": dict(config), "input": {}}, {"command_id": COMMAND_ID[dialect]}
    given = answer(200, {**ids, "action": action, "context": context, "meta": meta})
    claims = iter((given, *later_claims))

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            return next(claims, given)
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    return script


def execution(
    transport: Any, dialect: Dialect, beats: Beats, *tools: Any, ours: Emitter | None = None, **variables: str
) -> Executor:
    chosen = settings(NOETL_CONTROL_PLANE=dialect.value, **variables)
    registry = Registry(tools, plugins=False) if tools else Registry(plugins=False)
    beating: Any = beats
    services = WorkerServices(chosen, Identity(chosen), registry, InFlight(), beating, ours or emitter(), Slots(4))
    return Executor(ControlPlaneClient(transport, chosen), services)


def delivery(dialect: Dialect, **changes: Any) -> Any:
    body = {
        "execution_id": ENVELOPE.execution_id,
        "event_id": ENVELOPE.event_id,
        "step": "start",
        "command_id": COMMAND_ID[dialect],
        "server_url": URL,
        **changes,
    }
    return Delivery(json.dumps(body).encode())


def begun(whole: Executor, one: Any) -> tuple[asyncio.Task[Disposition | None], Progress]:
    """Work on a delivery as the worker does: in a task that a stop knows."""
    progress = Progress()
    progress.task = asyncio.ensure_future(whole.run(one, progress))
    return progress.task, progress


async def answered(running: Awaitable[Disposition | None]) -> Disposition:
    """How it ended: there is an answer to JetStream."""
    disposition = await running
    assert disposition is not None
    return disposition


def grace_over(whole: Executor, progress: Progress) -> None:
    whole.services.emitter.stopping.reach(StopLevel.GRACE_OVER)
    progress.stop()


def terminal(transport: ScriptedTransport) -> list[str]:
    told = [event["name"] for body in transport.bodies("/api/events/batch") for event in body["events"]]
    told += [body["event_type"] for body in transport.bodies("/api/events")]
    return [name for name in told if name in ("command.completed", "command.failed")]


async def stopped_at(hold: int, dialect: Dialect, *, let_go: bool, **variables: str) -> tuple[Disposition, Any]:
    transport = Gated(script_for(dialect, {}, "noop"), hold)
    whole = execution(transport, dialect, Beats(), NOETL_WORKER_STARTED_HOLD_MS="0", **variables)
    task, progress = begun(whole, delivery(dialect))
    await transport.reached.wait()
    grace_over(whole, progress)
    # A plane that issues commands in this request is cut off by the hard stop alone.
    asyncio.get_running_loop().call_later(1.0 if let_go else 600.0, transport.go.set if let_go else progress.cancel)
    try:
        return await answered(task), transport
    finally:
        transport.go.set()
        await whole.services.registry.aclose()


@pytest.mark.parametrize("let_go", [True, False], ids=["answer comes", "answer never comes"])
@pytest.mark.parametrize("worker_id", ["stable", ""], ids=["with WORKER_ID", "without"])
@pytest.mark.parametrize(
    ("dialect", "hold"), [(Dialect.PYTHON, 1), (Dialect.PYTHON, 2), *((Dialect.RUST, k) for k in (1, 2, 3))]
)
async def test_stop_at_any_request_gives_one_answer_and_at_most_one_terminal_set(
    dialect: Dialect, hold: int, worker_id: str, let_go: bool
) -> None:
    disposition, transport = await stopped_at(hold, dialect, let_go=let_go, WORKER_ID=worker_id)
    ended = terminal(transport)
    assert len(ended) <= 1
    if disposition.answer is Answer.ACK:
        assert len(ended) == 1
    if not let_go and hold == 1:
        assert disposition.answer is Answer.NAK


async def test_tool_that_raises_late_reports_its_start_once() -> None:
    transport = ScriptedTransport(script_for(Dialect.RUST, {"url": "http://127.0.0.1:9/"}, "http"))
    whole = execution(transport, Dialect.RUST, Beats(), NOETL_WORKER_STARTED_HOLD_MS="0")
    await whole.run(delivery(Dialect.RUST))
    await whole.services.registry.aclose()
    told = [body["event_type"] for body in transport.bodies("/api/events")]
    told += [event["name"] for body in transport.bodies("/api/events/batch") for event in body["events"]]
    assert told.count("command.started") == 1
    assert terminal(transport) == ["command.failed"]


@pytest.mark.parametrize("still_ours", [True, False])
async def test_expired_delivery_asks_the_claim_before_it_tells_the_outcome(still_ours: bool) -> None:
    who = {"worker_status": "running"} if still_ours else {"worker_id": "other"}
    held = answer(409, {"detail": {"code": "active_claim", **who}})
    not_known = NotSent("refused")  # no reason to throw a result away
    transport = ScriptedTransport(script_for(Dialect.PYTHON, {}, "noop", not_known, held))
    whole = execution(transport, Dialect.PYTHON, Beats(expired=True))
    disposition = await answered(whole.run(delivery(Dialect.PYTHON)))
    if still_ours:
        assert (disposition.answer, len(terminal(transport))) == (Answer.ACK, 1)
    else:
        assert (disposition.reason, terminal(transport)) == ("held_by_other", [])


async def test_bearer_token_goes_to_the_configured_servers_only() -> None:
    transport = ScriptedTransport(lambda *_: answer(200, {}))
    trusted = settings(NOETL_INTERNAL_API_TOKEN="t0ken", NOETL_WORKER_TRUSTED_SERVERS="http://second.test")
    client = ControlPlaneClient(transport, trusted)
    for url in (URL, "http://second.test", "http://evil.test", f"{URL}.evil.test"):
        await client.send("GET", f"{url}/api/health")
    assert ["authorization" in headers for *_, headers in transport.sent] == [True, True, False, False]


# ── what a tool does to its own task ──


@dataclass(frozen=True, slots=True)
class NoConfig:
    pass


class Odd:
    """A plug-in whose run is `do`."""

    kind: ClassVar[str] = "odd"
    config_model: ClassVar[type] = NoConfig

    def __init__(self, do: Callable[[], Awaitable[None]]) -> None:
        self._do = do
        self.runs = 0

    async def run(self, config: NoConfig, context: ToolContext) -> ToolResult:
        self.runs += 1
        await self._do()
        return ToolResult.success("done")


async def _cancelled_from_within() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner


async def _exit() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("do", "words"), [(_cancelled_from_within, "cancelled from within"), (_exit, "called exit")], ids=["cancel", "exit"]
)
async def test_tool_that_ends_its_own_task_is_told_as_a_failure(
    dialect: Dialect, do: Callable[[], Awaitable[None]], words: str
) -> None:
    """Taken for a stop of the worker, it would be returned and run again for ever; an exit would end the worker."""
    transport = ScriptedTransport(script_for(dialect, {}, "odd"))
    disposition = await answered(execution(transport, dialect, Beats(), Odd(do)).run(delivery(dialect)))
    assert (disposition.answer, disposition.reason) == (Answer.ACK, "reported")
    assert words in json.dumps(transport.sent[-1][2])


async def test_outcome_that_is_refused_and_then_another_workers_is_no_dead_letter() -> None:
    """Before the failure is told the delivery has expired, and the claim's answer is that another worker has it."""
    beats = Beats()
    held = answer(409, {"detail": {"code": "active_claim", "worker_id": "other"}})
    usual = script_for(Dialect.PYTHON, {}, "noop", held)

    def script(method: str, path: str, body: Any) -> Any:
        if "batch" in path:
            beats.expired = True
            return answer(422, {"detail": "no"})
        return usual(method, path, body)

    whole = execution(ScriptedTransport(script), Dialect.PYTHON, beats)
    disposition = await answered(whole.run(delivery(Dialect.PYTHON)))
    assert (disposition.answer, disposition.reason, disposition.dead_letter) == (Answer.NAK, "held_by_other", False)


@pytest.mark.parametrize("num_delivered", [1, 2])
async def test_second_delivery_on_the_rust_plane_asks_whose_the_command_is_first(
    num_delivered: int,
) -> None:
    """The same WORKER_ID is accepted at any time: an outcome of the process before us may have been told meanwhile."""
    over = answer(409, {"error": "Command is in terminal state COMPLETED"})
    transport = ScriptedTransport(script_for(Dialect.RUST, {}, "noop", over))
    again = delivery(Dialect.RUST)
    again.num_delivered = num_delivered
    disposition = await answered(execution(transport, Dialect.RUST, Beats(), WORKER_ID="w2").run(again))
    assert disposition.answer is Answer.ACK
    claims = [path for _, path, _, _ in transport.sent if path.endswith("/claim")]
    assert (disposition.reason, len(claims)) == (("reported", 1) if num_delivered == 1 else ("already_finished", 2))
    assert bool(terminal(transport)) is (num_delivered == 1)


async def test_command_that_runs_here_is_in_flight_when_a_dead_ones_outcome_was_dropped(
    ours: Emitter, tmp_path: Path
) -> None:
    """w1's late outcome of a command that w2 runs: adopted by w2, and dropped, since the claim is w2's."""
    late = event_set(ENVELOPE.event_id, "w1")
    late.execution_id, late.command_id = ENVELOPE.execution_id, COMMAND_ID[Dialect.PYTHON]
    left_behind(tmp_path, late)

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim") and body["worker_id"] == "w1":
            return answer(409, {"detail": {"code": "active_claim", "worker_id": "w2"}})
        return script_for(Dialect.PYTHON, {}, "odd")(method, path, body)

    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        await go_on.wait()

    tool = Odd(wait)
    whole = execution(ScriptedTransport(script), Dialect.PYTHON, Beats(), tool, ours=ours, WORKER_ID="w2")
    first = asyncio.ensure_future(whole.run(delivery(Dialect.PYTHON)))
    await running.wait()
    adoption = Adoption(whole.client, ours, whole.services.in_flight)
    adoption.adopt()
    while not ours.outbox.is_empty:
        await asyncio.sleep(0)
    again = delivery(Dialect.PYTHON)
    again.stream_sequence = 2  # published again by a reaper
    second = await answered(whole.run(again))
    go_on.set()
    disposition = await answered(first)
    await adoption.stop()
    assert (second.reason, disposition.reason, tool.runs) == ("in_flight_here", "reported", 1)


@pytest.mark.parametrize("config", [{}, {"result": {"of": "{{ step }}"}}], ids=["plain", "with a template"])
async def test_command_that_is_over_leaves_nothing_to_the_collector(
    dialect: Dialect, config: Mapping[str, Any]
) -> None:
    """A reference cycle keeps the claim, the result and the task of its command until the collector comes by."""
    made = execution(ScriptedTransport(script_for(dialect, config, "noop")), dialect, Beats())
    whole = replace(made, services=replace(made.services, in_flight=InFlight(0)))

    async def run() -> None:
        task, _ = begun(whole, delivery(dialect))
        assert (await answered(task)).answer is Answer.ACK

    await run()  # what is made once
    gc.collect()
    gc.disable()
    try:
        await run()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("age_s", "is_expired", "is_ours"), [(1_000, False, False), (1_750, False, True), (1_750, True, False)]
)
async def test_claim_that_another_has_for_its_age_alone_is_ours_as_well(
    age_s: float, is_expired: bool, is_ours: bool
) -> None:
    """Where each run takes longer than a claim of the Python plane lasts, no outcome would be reported."""
    at, _ = plane(lambda *_: answer(409, {"detail": {"code": "active_claim", "worker_id": "w-2"}}))
    claimed_at = time.monotonic() - age_s
    ownership = ClaimOwnership(
        at, 7, "w-1", log_ids=dict, claimed_at=claimed_at, is_expired=lambda _: is_expired, lease_s=120.0
    )
    with contextlib.nullcontext() if is_ours else pytest.raises(ClaimLost):
        await ownership.confirm()
