"""The formula of docs/operate.md#memory, against the memory that a worker takes with all of its slots in use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from faults.scene import Scene, children_of, scene
from integration.processes import Gate, WorkerProcess, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.cli.doctor.machine import needed_mb

WITHIN: Final = 0.3
HELD: Final = "held = [0] * 1_000_000\n"
"""8 MB."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PSS is read from /proc")


def pss_mb(worker: WorkerProcess) -> float:
    """Memory of a worker and of all below it; a page that n processes share counts as an n-th for each."""
    kilobytes = 0
    for pid in (worker.process.pid, *children_of(worker.process.pid)):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        kilobytes += int(text.partition("\nPss:")[2].split()[0])
    return kilobytes * 1024 / 1e6


def python(gate: Gate, before: str = "") -> RawCommand:
    """Python that waits at the gate as `Gate.command` does."""
    runs, path = str(gate.runs_file), str(gate.path)
    code = f"with open({runs!r}, 'a') as runs: runs.write('1 ')\nwith open({path!r}) as gate: gate.readline()\n"
    return RawCommand("python", {"code": f"{before}{code}result = 1"})


async def requests_without_an_answer(count: int, home: Scene) -> None:
    """`count` slots wait for a server that never answers."""
    here = 0

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal here
        here += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    home.stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    asks = RawCommand("http", {"url": f"http://127.0.0.1:{port}/", "method": "GET"})
    await home.plane.create_commands([asks] * count)
    await until(lambda: here == count, "all ask")


@pytest.mark.parametrize(
    ("kind", "slots", "data_mb", "make"),
    [
        ("python", 16, 0.0, python),
        ("python", 64, 0.0, python),
        ("python", 16, 8.0, lambda gate: python(gate, HELD)),
        ("shell", 64, 0.0, lambda gate: RawCommand("shell", {"command": gate.command()})),
        ("http", 64, 0.0, None),
    ],
)
async def test_worker_takes_the_memory_that_the_formula_says(
    kind: str, slots: int, data_mb: float, make: Callable[[Gate], RawCommand] | None, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home:
        worker = await home.start_process(WORKER_MAX_CONCURRENT=str(slots))
        if make is None:
            await requests_without_an_answer(slots, home)
        else:
            await home.plane.create_commands([make(gate)] * slots)
            await until(lambda: gate.runs == slots, "all slots in use")
        takes, said = pss_mb(worker), needed_mb(kind, slots, data_mb)
        print(f"{kind}, {slots} slots, {data_mb:g} MB each: {takes:.0f} MB, the formula says {said:.0f}")
        gate.open()
        worker.end()
    assert takes == pytest.approx(said, rel=WITHIN)
