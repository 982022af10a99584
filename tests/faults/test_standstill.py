"""F12, F13: the worker stands still, or its loop does."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from faults.conftest import Measured
from faults.plug_in import KINDS, install_tools
from faults.scene import QUICK, Scene, scene
from integration.processes import SHORT_LEASES, Gate, Probe, until
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect

BEATS = {"WORKER_HEARTBEAT_INTERVAL": "0.3", "NOETL_WORKER_ACK_WAIT_S": "1"}


async def paused_while_it_runs(home: Scene, gate: Gate, port: int | None = None) -> IssuedCommand:
    """A command whose tool has started in a worker that is paused; its peer is there, `home.processes` are both."""
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"} if port else {}
    paused = await home.start_process("paused", WORKER_ID="pod-0", **BEATS, **QUICK, **bind)
    [one] = await home.running(gate)
    await home.plane.wait_until(lambda: bool(home.plane.events_of_command(one.event_id, "command.started")))
    await home.start_process("peer", WORKER_ID="pod-1", **BEATS, **QUICK)
    paused.signal(signal.SIGSTOP)
    return one


async def test_f12_worker_that_stood_still_tells_nothing_of_a_command_that_passed_to_another(
    tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path, plane=SHORT_LEASES) as home:
        port = free_port()
        one = await paused_while_it_runs(home, gate, port)
        paused, _ = home.processes
        await until(lambda: gate.runs == 2, "the peer's run")
        gate.open()
        await home.wait_terminal(one.event_id)
        paused.signal(signal.SIGCONT)

        async def dropped() -> bool:
            return "noetl_worker_outcomes_dropped_total 1.0" in await Probe(port).metrics()

        await until(dropped, "the outcome dropped")
        await home.assert_books([one])
        assert home.terminal_events(one.event_id) == ["command.completed"]
        calls = home.plane.events_of_command(one.event_id, "call.done", "call.error")
        await home.stop_all()
    measured("F12", "python: call.done of a command that two workers ran", len(calls), "", exactly=1)


async def test_f12_worker_that_stood_still_tells_what_is_still_its_own(tmp_path: Path, measured: Measured) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path, Dialect.RUST) as home:
        one = await paused_while_it_runs(home, gate)
        paused, peer = home.processes
        await until(lambda: bool(peer.logged("message_returned")), "the peer refused")
        gate.open()
        before = home.grants.total()
        paused.signal(signal.SIGCONT)
        await home.wait_terminal(one.event_id)
        await home.assert_books([one])
        assert home.terminal_events(one.event_id) == ["command.completed"]
        asked = home.grants.total() - before
        await home.stop_all()
    measured("F12", "rust: runs of a command whose claim this worker kept", gate.runs, "", exactly=1)
    measured("F12", "rust: asked again whose it is", asked, "", exactly=1)


async def blocked(directory: Path, measured: Measured, *, notice_s: float, ack_wait_s: float) -> None:
    """The loop stands still for twice the time after which liveness tells it, and for five ack_waits."""
    port, span_s = free_port(), 2 * notice_s
    assert span_s == 5 * ack_wait_s
    variables = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}", "NOETL_WORKER_ACK_WAIT_S": f"{ack_wait_s:g}"}
    notice = f"noetl_worker.observability.probes:BLOCKED_AFTER_S={notice_s}"
    async with scene(directory, plane={"extra_kinds": KINDS}) as home:
        await home.start_process(**variables, **install_tools(directory, SET=notice))
        probe = Probe(port)
        [one] = await home.plane.create_commands([RawCommand("block", {"seconds": span_s})])
        await until((directory / "blocked").exists, "the loop is blocked")
        began = time.monotonic()

        async def answers(status: int) -> bool:
            return (await probe.get("/livez")).status_code == status

        assert await answers(200)
        await until(lambda: answers(503), "liveness 503")
        reported_s = time.monotonic() - began
        await home.wait_terminal(one.event_id)
        await until(lambda: answers(200), "alive again")
        await home.close_books([one])
        deliveries = home.asked[one.event_id]
    word = f"blocked for {span_s:g} s"
    measured("F13", f"{word}: liveness 503 after (reported from {notice_s:g} s)", reported_s, "s", at_most=notice_s + 1)
    measured("F13", f"{word}: deliveries over five ack_waits", deliveries, "", exactly=1)


async def test_f13_blocked_loop_is_reported_and_costs_no_second_delivery(tmp_path: Path, measured: Measured) -> None:
    await blocked(tmp_path, measured, notice_s=2.5, ack_wait_s=1)


@pytest.mark.soak
async def test_f13_loop_that_is_blocked_for_10_s(tmp_path: Path, measured: Measured) -> None:
    await blocked(tmp_path, measured, notice_s=5, ack_wait_s=2)
