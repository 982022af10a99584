"""F1 to F5: signals. What runs finishes or is returned; what a killed worker held is run by who may have it."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from faults.conftest import Measured
from faults.scene import QUICK, Scene, beside_both_planes, children_of, is_there, scene
from integration.house import TERMINAL
from integration.processes import SHORT_LEASES, Gate, WorkerProcess, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect

BEATS = {"WORKER_HEARTBEAT_INTERVAL": "0.3"}
LONG_DRAIN = {"NOETL_WORKER_DRAIN_TIMEOUT_S": "1000"}


def shell(command: str) -> RawCommand:
    return RawCommand("shell", {"command": command})


async def one_running(home: Scene, command: RawCommand, gate: Gate) -> IssuedCommand:
    """Issue it and wait until its tool runs and the plane has heard of the start."""
    [one] = await home.plane.create_commands([command])
    await until(lambda: gate.runs >= 1, "the tool's start")
    await home.plane.wait_until(lambda: bool(home.plane.events_of_command(one.event_id, "command.started")))
    return one


async def exit_after(worker: WorkerProcess, code: int) -> float:
    """Seconds until it has ended with this code."""
    asked = time.monotonic()
    assert await worker.exit_code() == code, worker.text[-3000:]
    return time.monotonic() - asked


# ── F1 ──


@pytest.mark.parametrize(
    ("dialect", "number"),
    [(Dialect.PYTHON, signal.SIGTERM), (Dialect.RUST, signal.SIGINT)],
)
async def test_f01_first_signal_lets_50_commands_finish_and_claims_no_other(
    dialect: Dialect, number: signal.Signals, tmp_path: Path, measured: Measured
) -> None:
    run_s = 1.0
    async with scene(tmp_path, dialect) as home:
        variables = {"WORKER_MAX_CONCURRENT": "64", "NOETL_WORKER_DRAIN_TIMEOUT_S": "1000", "WORKER_ID": "pod-0"}
        worker = await home.start_process(**variables)
        name = (await worker.wait_logged("registered"))["worker_id"]
        issued = await home.plane.create_commands([home.effect(f"sleep {run_s}; ")] * 50)
        await until(lambda: home.grants.total() == 50, "50 in flight")
        late: list[IssuedCommand] = []
        asked = time.monotonic()
        worker.signal(number)
        for _ in range(20):
            late += await home.plane.create_commands([RawCommand("noop")])
            await asyncio.sleep(0.02)
        assert await worker.exit_code() == 0
        ended = [event for one in issued for event in home.plane.events(one.execution_id, *TERMINAL)]
        took_s = time.time() - max(event.created_at for event in ended)  # 50 programs take what the machine gives
        last_claim_s = max(home.claim_times) - asked
        assert len(home.ends(issued, *TERMINAL)) == 50
        gone = "worker_missing" if dialect is Dialect.RUST else "worker_inactive"
        assert home.plane.registry.why_lost(name, 1e9) == gone
        await home.start_process("second", WORKER_ID="pod-1")
        await home.wait_ended(late)
        await home.assert_books([*issued, *late])
        assert home.effects.total() == 50
        await home.stop_all()
    measured("F1", f"{dialect.value} {number.name}: last claim after", max(0.0, last_claim_s * 1000), "ms", at_most=100)
    measured("F1", f"{dialect.value} {number.name}: exit 0 after the last one's end", took_s, "s", at_most=1)


# ── F2 ──


@beside_both_planes
async def test_f02_command_longer_than_the_drain_comes_back_and_completes_elsewhere(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    lease = {"NOETL_WORKER_CLAIM_LEASE_S": "1"}
    variables = {"WORKER_ID": "pod-0", "NOETL_WORKER_DRAIN_TIMEOUT_S": "1", **BEATS}
    async with scene(tmp_path, dialect, plane=SHORT_LEASES) as home:
        first = await home.start_process("first", **variables, **lease)
        one = await one_running(home, shell(gate.command()), gate)
        children = children_of(first.process.pid)
        second = asyncio.ensure_future(home.start_process("second", **variables))
        if dialect is Dialect.PYTHON:
            await second
        first.signal()
        took_s = await exit_after(first, 4)
        stopped = time.monotonic()
        await until(lambda: not any(map(is_there, children)), "the end of its children")
        assert home.terminal_events(one.event_id) == []
        await second
        await until(lambda: gate.runs == 2, "the second run")
        again_s = time.monotonic() - stopped
        gate.open()
        await home.wait_terminal(one.event_id)
        assert home.terminal_events(one.event_id) == ["command.completed"]
        await home.close_books([one])
    measured("F2", f"{dialect.value}: exit 4 after", took_s, "s", at_most=1 + 3)
    measured("F2", f"{dialect.value}: runs at a peer after", again_s, "s", at_most=4)


# ── F3 ──


async def taken_up(home: Scene, gate: Gate, one: IssuedCommand) -> None:
    """A successor runs what was returned, or left, to its one end; the books are closed."""
    gate.open()  # for a tool that its worker has left behind too
    await home.start_process("second", WORKER_ID="pod-0", **BEATS)
    await home.wait_terminal(one.event_id)
    await home.assert_books([one])
    assert gate.runs == 2
    await home.stop_all()


async def test_f03_second_signal_cancels_at_once(tmp_path: Path, measured: Measured) -> None:
    gate, variables = Gate(tmp_path), {"NOETL_WORKER_CLAIM_LEASE_S": "1", "WORKER_ID": "pod-0", **BEATS}
    async with scene(tmp_path, plane=SHORT_LEASES) as home:
        worker = await home.start_process("first", **LONG_DRAIN, **variables)
        one = await one_running(home, shell(gate.command()), gate)
        worker.signal()
        await worker.wait_logged("draining")
        worker.signal()
        took_s = await exit_after(worker, 4)
        assert home.terminal_events(one.event_id) == []
        assert await home.unsettled() >= 1  # returned; the plane may have published it again besides
        await taken_up(home, gate, one)
    measured("F3", "second signal: exit 4 after", took_s, "s", at_most=1)


async def test_f03_third_signal_exits_at_once_even_when_a_tool_ignores_sigterm(
    tmp_path: Path, measured: Measured
) -> None:
    gate, variables = Gate(tmp_path), {"NOETL_WORKER_ACK_WAIT_S": "1", "WORKER_ID": "pod-0", **BEATS}
    async with scene(tmp_path, plane=SHORT_LEASES) as home:
        worker = await home.start_process("first", **LONG_DRAIN, **variables)
        try:
            one = await one_running(home, shell(gate.command(before="trap '' TERM;")), gate)
            for event in ("draining", "commands_cancelled"):
                worker.signal()
                await worker.wait_logged(event)
            worker.signal()
            took_s = await exit_after(worker, 130)
            assert home.terminal_events(one.event_id) == []
            await taken_up(home, gate, one)
        finally:
            gate.open()  # ends the tool that is left
    measured("F3", "third signal: exit 130 after", took_s, "s", at_most=1)


# ── F4, F5 ──


async def killed(home: Scene, gate: Gate, **variables: str) -> IssuedCommand:
    """A command whose worker is killed in the middle of its run."""
    first = await home.start_process("first", **variables)
    one = await one_running(home, shell(gate.command()), gate)
    first.signal(signal.SIGKILL)
    assert await first.exit_code() == -signal.SIGKILL
    return one


async def test_f04_command_of_a_killed_worker_runs_again_in_its_successor_of_the_same_id(
    tmp_path: Path, measured: Measured
) -> None:
    gate, variables = Gate(tmp_path), {"WORKER_ID": "pod-0", "NOETL_WORKER_ACK_WAIT_S": "2", **BEATS}
    async with scene(tmp_path, Dialect.RUST) as home:
        one = await killed(home, gate, **variables)
        killed_at = time.monotonic()
        await home.start_process("second", **variables)
        await until(lambda: gate.runs == 2, "the second run")
        again_s = time.monotonic() - killed_at
        assert home.terminal_events(one.event_id) == []
        gate.open()  # for the tool of the killed worker too: nobody listens to it any more
        await home.wait_terminal(one.event_id)
        await home.close_books([one])
    measured("F4", "runs again after (ack_wait 2 s)", again_s, "s", at_most=3)


async def test_f05_command_of_a_killed_worker_is_taken_up_by_another_once_the_plane_gives_it_away(
    tmp_path: Path, measured: Measured
) -> None:
    gate, variables = Gate(tmp_path), {"NOETL_WORKER_ACK_WAIT_S": "1", **BEATS}
    async with scene(tmp_path, plane={**SHORT_LEASES, "claim_lease_s": 3.0}) as home:
        peer = await home.start_process("peer", **QUICK, **variables)
        peer.signal(signal.SIGSTOP)  # the first one gets the command
        one = await killed(home, gate, **variables)
        killed_at = time.monotonic()
        peer.signal(signal.SIGCONT)
        await until(lambda: gate.runs == 2, "the second run")
        again_s = time.monotonic() - killed_at
        refused = [record for record in peer.logged("message_returned") if record["reason"] == "held_by_other"]
        assert refused
        assert all(record["delay_s"] > 0 for record in refused)
        gate.open()
        await home.wait_terminal(one.event_id)
        await home.close_books([one])
    measured("F5", "python: runs at a peer after (lease 3 s)", again_s, "s", at_most=3 + 3)


async def test_f05_command_that_is_another_workers_for_ever_is_never_acked(tmp_path: Path, measured: Measured) -> None:
    gate, variables = Gate(tmp_path), {"NOETL_WORKER_ACK_WAIT_S": "1", **BEATS}
    async with scene(tmp_path, Dialect.RUST) as home:
        one = await killed(home, gate, WORKER_ID="pod-0", **variables)
        stranger = await home.start_process("stranger", WORKER_ID="pod-1", LOG_LEVEL="debug", **QUICK, **variables)
        await until(lambda: len(stranger.logged("message_returned")) >= 3, "three refusals")
        assert {record["reason"] for record in stranger.logged("message_returned")} == {"held_by_other"}
        assert await home.unsettled() == 1
        assert home.terminal_events(one.event_id) == []
        measured("F5", "rust: acked without an outcome", 1 - await home.unsettled(), "", exactly=0)
        assert await stranger.stop() == 0
        gate.open()
        await home.start_process("second", WORKER_ID="pod-0", **variables)
        await home.wait_terminal(one.event_id)
        await home.close_books([one])
