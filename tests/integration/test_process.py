"""The worker as a process: its start, its signals, its probes, its memory; real NATS, the development plane."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from closed_port import closed_port
from holds import HOLDS_TIMES
from integration.house import house
from integration.processes import SOURCE, WorkerProcess, one_line, refused_start, starting_process, worker_process
from integration.test_pipeline import mixed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

# ── start and memory ──


COUNTS = "it counts the events of hundreds of commands on its own loop; the worker is a process of its own"
pytestmark = pytest.mark.heavy_on_loop(reason=COUNTS)
COUNT = 500 if HOLDS_TIMES else 150
MOST_STARTS = 6.0
"""From its start to its first claim a worker may take as long as so many interpreters that only import nats-py."""


def kept_waiting_s(pid: int) -> float:
    """How long its main thread could run and had no core: what else runs on the machine makes that long."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def imported_s() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import nats"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif(not HOLDS_TIMES, reason="a time: make faults")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_first_command_is_claimed_soon_after_the_process_start(tmp_path: Path) -> None:
    async def claimed_s(number: int) -> float:
        async with house(worker=False) as home:
            [one] = await home.plane.create_commands([RawCommand("noop")])
            async with starting_process(home, tmp_path, f"worker{number}") as worker:
                await home.plane.wait_until(lambda: home.plane.command(one.event_id).worker_id is not None)
                return time.monotonic() - worker.started_at - kept_waiting_s(worker.process.pid)

    pairs = [(await claimed_s(number), imported_s()) for number in range(4)]  # side by side: a slow core slows both
    print("process start to first claim, and an interpreter with nats-py:", pairs)
    assert min(claim for claim, _ in pairs) < MOST_STARTS * min(bare for _, bare in pairs) or not HOLDS_TIMES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_worker_stays_under_100_mb_over_mixed_commands(tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home, worker_process(home, tmp_path) as worker:
        before, _ = worker.memory_mb()
        issued = await home.plane.create_commands([mixed(number) for number in range(COUNT)])
        await home.wait_terminal(*(one.event_id for one in issued))
        after, most = worker.memory_mb()
        print(f"{before:.1f} MB at the start, {after:.1f} MB after {COUNT} commands, most {most:.1f} MB")
        assert most < 100
        await home.wait_settled()
        assert await worker.stop() == 0
        assert all(len(home.terminal_events(one.event_id)) == 1 for one in issued)


async def test_mixed_commands_end_on_the_standard_loop_too(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    path = os.pathsep.join((str(tmp_path), SOURCE))
    async with house(worker=False) as home, worker_process(home, tmp_path, PYTHONPATH=path) as worker:
        issued = await home.ran(*(mixed(number) for number in range(30)))
        assert await worker.stop() == 0
        assert all(len(home.terminal_events(one.event_id)) == 1 for one in issued)


async def test_variable_that_is_no_setting_is_named_once_at_the_start(tmp_path: Path) -> None:
    variables = {"NOETL_WORKER_KIND_LIMIT": "http=2", "NOETL_WORKER_PROCESSES": "2"}
    async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
        [said] = worker.logged("settings_unknown")
        assert "NOETL_WORKER_KIND_LIMIT" in said["variables"]
        assert "did you mean NOETL_WORKER_KIND_LIMITS?" in said["advice"]
        assert not {"NOETL_WORKER_PROCESSES", "NOETL_WORKER_SUPERVISOR"} & set(said["variables"])
        assert await worker.stop() == 0


# ── signals at its start (the others: tests/faults/test_signals.py) ──


async def test_signal_while_it_waits_for_nats_ends_it(tmp_path: Path) -> None:
    variables = {"NATS_URL": f"nats://127.0.0.1:{closed_port()}", "WORKER_METRICS_BIND": ""}
    worker = WorkerProcess(tmp_path, "worker", variables, ["run"])
    try:
        await worker.wait_logged("nats_unreachable")
        worker.signal()
        assert await worker.exit_code() == 0
    finally:
        worker.end()


async def test_signal_while_it_waits_for_the_control_plane_ends_it(tmp_path: Path) -> None:
    async with (
        house(worker=False) as home,
        starting_process(home, tmp_path, NOETL_SERVER_URL=f"http://127.0.0.1:{closed_port()}") as worker,
    ):
        await worker.wait_logged("control_plane_unreachable")
        worker.signal()
        assert await worker.exit_code() == 0


# ── probes ──


async def test_probe_port_that_is_taken_stops_the_start_and_names_the_setting(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        second = await refused_start(tmp_path, **home.addresses, WORKER_METRICS_BIND=f"127.0.0.1:{home.nats.port}")
        assert second.process.returncode == 2
        assert "WORKER_METRICS_BIND" in one_line(second)
