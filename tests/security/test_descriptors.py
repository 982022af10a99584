"""Probe connections or a lack of descriptors fail commands."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from integration.house import house
from integration.processes import Probe, environment, until, worker_process
from noetl_worker.dev.nats_server import free_port
from noetl_worker.dev.plane import RawCommand
from noetl_worker.observability.probe_connections import MAX_CONNECTIONS, ProbeConnection
from noetl_worker.observability.probes import Health, probe_app
from patience import PATIENCE_S

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

# ── the probe port ──


@asynccontextmanager
async def probe_port(answered_within_s: float) -> AsyncIterator[tuple[int, Any]]:
    """Its number, and the class of its connections."""
    made: Any = type("Connection", (ProbeConnection,), {"answered_within_s": answered_within_s})
    config = uvicorn.Config(probe_app(Health()), http=made, log_level="error", lifespan="off")
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started, "serving")
        yield listener.getsockname()[1], made
    finally:
        server.should_exit = True
        await serving


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(HEALTHZ)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head.startswith(b"HTTP/1.1 200")


async def closed_by_server(reader: asyncio.StreamReader) -> None:
    """Returns when the other side has ended the connection."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        return


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nX: "], ids=["nothing", "a byte", "a half"])
@pytest.mark.parametrize("after", [0, 1], ids=["at once", "after an answer"])
async def test_connection_that_asks_for_nothing_is_closed(sent: bytes, after: int) -> None:
    """Probe connections that never ask, or a byte at a time."""
    async with probe_port(600.0 if after else 0.05) as (port, made):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(after):
            assert await answered(reader, writer)
            made.answered_within_s = 0.05  # after the next answer
            assert await answered(reader, writer)
        writer.write(sent)
        await closed_by_server(reader)
        writer.close()


async def test_connections_are_bounded_and_a_probe_that_asks_at_once_is_heard() -> None:
    """More connections than the probe port takes."""
    async with probe_port(600.0) as (port, _):  # nothing is closed for its age here
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 10)]
        await asyncio.gather(*(closed_by_server(reader) for reader, _ in silent[:10]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await answered(reader, writer)
        assert await answered(reader, writer)  # and so is its next question
        await closed_by_server(silent[10][0])
        for _, one in [*silent, (reader, writer)]:
            one.close()


async def test_idle_connections_to_the_probe_port_fail_no_command(tmp_path: Path) -> None:
    """300 idle connections, until tools find no descriptor."""
    port = free_port()
    async with (
        house(worker=False) as home,
        worker_process(home, tmp_path, WORKER_METRICS_BIND=f"127.0.0.1:{port}") as worker,
    ):
        resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (250, 250))
        with ExitStack() as idle:
            for _ in range(300):
                idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            issued = await home.plane.create_commands([RawCommand("shell", {"command": "true"})] * 20)
            await home.wait_terminal(*(one.event_id for one in issued))
            assert (await Probe(port).get("/livez")).status_code == 200
        ends = [home.terminal_events(one.event_id) for one in issued]
        assert ends == [["command.completed"]] * 20
        assert await worker.stop() == 0


# ── the limit of open files ──

SHOW = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    "from noetl_worker.process.open_files import raise_open_files_limit\n"
    "print(raise_open_files_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
)


@pytest.mark.parametrize(("soft", "hard"), [(256, 512), (512, 512)])
def test_soft_limit_of_open_files_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    code = SHOW.format(soft=soft, hard=hard)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )
    assert done.stdout.split() == ["512", "512", "512"], done.stderr


async def test_worker_raises_its_limit_at_its_start(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(400, before[1]), before[1]))
    try:
        async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
            soft, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
            assert soft == hard == before[1]
            assert await worker.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
