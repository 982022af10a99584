"""Two hours of mixed kinds at half load: twelve parts of ten minutes, each a worker that must not grow.

`make soak` goes on with the part at which it was stopped (conftest.py).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Final

import pytest

from faults.conftest import Measured
from faults.scene import Scene, scene
from faults.test_nats_outage import feeding
from faults.test_soak import grown_mb, slope_mb_per_h
from integration.processes import WorkerProcess
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect

PARTS: Final = 12
PART_S: Final = float(os.environ.get("TESTS_SOAK_PART_S", "600"))
"""Shorter to try the script itself."""
TURNS: Final = 20


def mix_of(home: Scene) -> list[RawCommand]:
    """What a playbook has: calls, code in processes, data, a result for the store, and a failure."""
    return [
        RawCommand("noop"),
        RawCommand("http", {"url": f"{home.plane.url}/api/health", "method": "GET"}),
        RawCommand("python", {"code": "result = sum(range(1000))"}),
        RawCommand("shell", {"command": "echo done"}),
        RawCommand("duckdb", {"query": "SELECT sum(i) AS total FROM range(1000) t(i)"}),
        RawCommand("rhai", {"code": "let x = 6; x * 7"}),
        RawCommand("python", {"code": "result = 'x' * 200_000"}),
        RawCommand("shell", {"command": "exit 3"}),
    ]


async def fill_pools(home: Scene) -> None:
    """Every slot with the same kind at once: afterwards as many of its processes wait for work as ever will."""
    for kept_busy in (
        RawCommand("python", {"code": "import time\ntime.sleep(0.5)"}),
        RawCommand("shell", {"command": "sleep 0.5"}),
        RawCommand("rhai", {"code": "let x = 0; while x < 400_000 { x += 1; } x"}),
    ):
        await home.wait_ended(await home.plane.create_commands([kept_busy] * 64))


async def all_at_once(home: Scene) -> float:
    """Commands a second."""
    began = time.monotonic()
    issued = await home.plane.create_commands(mix_of(home) * TURNS)
    await home.wait_ended(issued)
    await home.assert_books(issued)
    return len(issued) / (time.monotonic() - began)


def threads_of(worker: WorkerProcess) -> int:
    return len(list(Path(f"/proc/{worker.process.pid}/task").iterdir()))


@pytest.mark.soak
@pytest.mark.timeout(PART_S + 900)
@pytest.mark.parametrize("part", range(PARTS))
async def test_mixed_kinds_at_half_load_leave_nothing_behind(part: int, tmp_path: Path, measured: Measured) -> None:
    dialect = list(Dialect)[part % 2]
    async with scene(tmp_path, dialect) as home:
        worker = await home.start_process(
            WORKER_ID="soak", NOETL_WORKER_ACK_WAIT_S="3", NOETL_WORKER_LOG_COMMANDS="failed", TMPDIR=str(tmp_path)
        )
        await fill_pools(home)
        await all_at_once(home)
        per_s = max(1, int(await all_at_once(home) / 2))
        before, threads, files = await home.leftovers(worker), threads_of(worker), len(list(tmp_path.iterdir()))
        issued: list[IssuedCommand] = []
        samples: list[tuple[float, float]] = []
        backlog: list[int] = []
        began = time.monotonic()
        async with feeding(home, issued, per_s=per_s, mix=mix_of(home)):
            while (at := time.monotonic() - began) < PART_S:
                await asyncio.sleep(min(1.0, PART_S / 60))
                samples.append((at, worker.memory_mb()[0]))
                backlog.append(await home.unsettled())
        await home.wait_ended(issued)
        await home.assert_books(issued)
        await home.assert_holds_no_more(worker, before)
        after, rows = await home.leftovers(worker), home.outbox_rows()
        more_threads, more_files = threads_of(worker) - threads, len(list(tmp_path.iterdir())) - files
        await home.stop_all()
    quarter = max(1, len(samples) // 4)
    word = f"{dialect.value}, mixed kinds at half load, part {part + 1} of {PARTS}"
    measured("S", f"{word}: commands", len(issued), "")
    measured("S", f"{word}: grown by", grown_mb(samples), "MB", at_most=5)
    measured("S", f"{word}: memory slope", slope_mb_per_h(samples), "MB/h")
    measured("S", f"{word}: more descriptors (files)", after.files - before.files, "", at_most=0)
    measured("S", f"{word}: more children, zombies too", after.children - before.children, "", at_most=0)
    measured("S", f"{word}: more threads", more_threads, "", at_most=2)
    measured("S", f"{word}: more files", more_files, "", at_most=0)
    measured("S", f"{word}: outcomes left on disk", rows, "", exactly=0)
    measured("S", f"{word}: median backlog, last quarter", statistics.median(backlog[-quarter:]), "", at_most=2 * per_s)
