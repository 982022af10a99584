"""F6, F7, F11: NATS restarts, is a black hole, loses an ack."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults.conftest import Measured
from faults.proxy import Proxy, Way
from faults.scene import Scene, inside, scene
from holds import HOLDS_TIMES
from integration.house import TERMINAL
from integration.processes import ON_DISK, Gate, Probe, WorkerProcess, until
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand

LOST_PUBLISHES: dict[str, Any] = {**ON_DISK, "pending_retry_s": 2.0, "reaper_interval_s": 0.5}
"""A plane that publishes again what a killed server had not written."""
MAIN = "noetl-worker "


def main_connection(worker: WorkerProcess, event: str) -> list[Any]:
    """Log records about the connection that pulls, not the keepalive's."""
    return [record for record in worker.logged(event) if record["connection"].startswith(MAIN)]


@contextlib.asynccontextmanager
async def feeding(
    home: Scene, issued: list[IssuedCommand], *, per_s: int, mix: Sequence[RawCommand] = (RawCommand("noop"),)
) -> AsyncIterator[None]:
    """Commands of this mix, in turns, at this rate while the block runs."""
    turns = itertools.cycle(mix)

    stop = asyncio.Event()  # not a cancellation: nats-py's flush may swallow it (cpython #86296)

    async def feed() -> None:
        started, sent = time.monotonic(), 0
        while not stop.is_set():
            by_now = int((time.monotonic() - started) * per_s)
            due = min(by_now - sent, per_s)  # a flush of the plane's that the server never answered is no flood later
            issued.extend(await home.plane.create_commands(list(itertools.islice(turns, due))) if due else [])
            sent = by_now
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(feed())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        stop.set()
        await task


# ── F6 ──

LOAD_PER_S = 500 if HOLDS_TIMES else 150


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_f06_worker_is_back_at_work_right_after_a_restart_of_nats_under_load(
    number: signal.Signals, tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, plane=LOST_PUBLISHES) as home:
        worker = await home.start_process(WORKER_MAX_CONCURRENT="32", NOETL_WORKER_ACK_WAIT_S="2")
        issued: list[IssuedCommand] = []
        async with feeding(home, issued, per_s=LOAD_PER_S):
            await until(lambda: 2 * home.grants.total() > LOAD_PER_S, "load")
            await (home.nats.kill() if number is signal.SIGKILL else home.nats.stop())
            await home.nats.start()
            up = time.monotonic()
            await until(lambda: bool(main_connection(worker, "nats_reconnected")), "connected again", every_s=0.01)
            connected = time.monotonic()
            before = len(home.claim_times)
            await until(lambda: len(home.claim_times) > before, "a delivery", every_s=0.005)
            delivered = home.claim_times[before]
            await home.more_grants(LOAD_PER_S // 2)
        await home.wait_ended(issued)
        await home.close_books(issued)
        lost = len(issued) - len(home.ends(issued, *TERMINAL))
    measured("F6", f"{number.name}: connected again after", connected - up, "s", at_most=2)
    measured("F6", f"{number.name}: first delivery after that", delivered - connected, "s", at_most=1)
    measured("F6", f"{number.name}: lost", lost, "", exactly=0)


# ── F7 ──


async def black_hole(directory: Path, measured: Measured, *, ping_s: float) -> None:
    port = free_port()
    variables = {
        "WORKER_METRICS_BIND": f"127.0.0.1:{port}",
        "WORKER_NATS_LAG_POLL_INTERVAL": "1",
        "NOETL_WORKER_ACK_WAIT_S": "2",
    }
    changes = inside(SET=f"noetl_worker.remote.jetstream.connection:PING_INTERVAL_S={ping_s}")
    async with scene(directory) as home, Proxy(home.nats.port) as proxy:
        worker = await home.start_process(NATS_URL=f"nats://127.0.0.1:{proxy.port}", **variables, **changes)
        probe = Probe(port)
        await until(probe.is_ready, "ready")
        proxy.hold()
        held = time.monotonic()
        await until(lambda: bool(main_connection(worker, "nats_disconnected")), "found")
        found_s = time.monotonic() - held

        async def cut_off() -> bool:
            return not await probe.is_ready()

        await until(cut_off, "not ready")
        not_ready_s = time.monotonic() - held
        # Published into the hole: NATS hands it to a connection that it still believes in.
        [lost] = await home.plane.create_commands([RawCommand("noop")])
        proxy.heal()
        healed = time.monotonic()
        await until(lambda: bool(main_connection(worker, "nats_reconnected")), "connected again")
        fresh = await home.one_more()
        back_s = time.monotonic() - healed
        await home.wait_terminal(lost.event_id)
        lost_s = time.monotonic() - healed
        await until(probe.is_ready, "ready again")
        await home.close_books([lost, fresh])
    measured("F7", f"found after (ping {ping_s:g} s)", found_s, "s", at_most=2 * ping_s + 0.2)
    measured("F7", f"not ready after (ping {ping_s:g} s)", not_ready_s, "s", at_most=2 * ping_s + 0.5)
    measured("F7", f"works again after (ping {ping_s:g} s)", back_s, "s", at_most=2)
    measured("F7", "what NATS sent into the hole ends after (ack_wait 2 s)", lost_s, "s", at_most=2 + 1)


async def test_f07_black_hole_is_found_and_left(tmp_path: Path, measured: Measured) -> None:
    await black_hole(tmp_path, measured, ping_s=1)


@pytest.mark.soak
async def test_f07_black_hole_is_found_and_left_with_the_real_ping_interval(tmp_path: Path, measured: Measured) -> None:
    await black_hole(tmp_path, measured, ping_s=10)


# ── F11 ──


async def test_f11_lost_ack_is_repaired_without_a_second_run(tmp_path: Path, measured: Measured) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home, Proxy(home.nats.port) as proxy:
        variables = {"NOETL_WORKER_ACK_WAIT_S": "1"}
        await home.start_process("cut", NATS_URL=f"nats://127.0.0.1:{proxy.port}", **variables)
        [one] = await home.running(gate)
        whole = await home.start_process("whole", **variables)
        proxy.drop(Way.UP)
        gate.open()
        await home.wait_terminal(one.event_id)
        await home.wait_settled()  # the other worker was delivered it, asked, and acked
        assert b"+ACK" in proxy.dropped[Way.UP]
        proxy.heal()
        again = await home.one_more()
        await home.close_books([one, again])
        settled = whole.logged("stopped")[0]["settled"]
        assert settled.get("ack:already_finished") == 1
    measured("F11", "runs of the tool", gate.runs, "", exactly=1)


async def test_f11_lost_ack_is_repaired_by_the_worker_that_ran_it(tmp_path: Path, measured: Measured) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home, Proxy(home.nats.port) as proxy:
        address = {"NATS_URL": f"nats://127.0.0.1:{proxy.port}", "NOETL_WORKER_ACK_WAIT_S": "1"}
        worker = await home.start_process(**address)
        [one] = await home.running(gate)
        proxy.drop(Way.UP)
        gate.open()
        await home.wait_terminal(one.event_id)
        await until(lambda: b"+ACK" in proxy.dropped[Way.UP], "the ack is lost")
        proxy.heal()
        healed = time.monotonic()
        await home.wait_settled()
        settled_s = time.monotonic() - healed
        await home.close_books([one])
        assert worker.logged("stopped")[0]["settled"].get("ack:already_finished_here", 0) >= 1
        assert home.asked[one.event_id] == 1
    measured("F11", "same worker: runs of the tool", gate.runs, "", exactly=1)
    measured("F11", "same worker: acked after", settled_s, "s", at_most=5)
