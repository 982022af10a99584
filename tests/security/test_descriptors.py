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

import pytest

from integration.house import house
from integration.processes import Probe, environment, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.observability.probe_server import MAX_CONNECTIONS, MAX_HEAD_BYTES, ProbeServer
from noetl_worker.observability.probes import Health, make_pages
from patience import PATIENCE_S

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

# ── the probe port ──


@asynccontextmanager
async def probe_port(answered_within_s: float) -> AsyncIterator[int]:
    server = ProbeServer(make_pages(Health()), answered_within_s=answered_within_s)
    await server.open("127.0.0.1:0")
    try:
        yield server.port
    finally:
        await server.close()


async def all_from(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side has ended the connection."""
    received = b""
    try:
        while part := await reader.read(65536):
            received += part
    except ConnectionError:
        pass
    return received


async def told(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    received = await all_from(reader)
    writer.close()
    return received


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nX: "], ids=["nothing", "a byte", "a half"])
async def test_connection_that_asks_for_nothing_is_closed(sent: bytes) -> None:
    """Connections to the probe port that never ask, or ask by a byte now and then."""
    async with probe_port(0.05) as port:
        assert await told(port, sent) == b""


async def test_head_without_an_end_is_not_kept() -> None:
    """A request to the probe port whose head never ends, to take the worker's memory."""
    async with probe_port(600.0) as port:
        assert await told(port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES) == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEALTHZ, 200),
        (HEALTHZ * 2, 200),
        (HEALTHZ.replace(b"healthz", b"livez?verbose=1"), 200),
        (HEALTHZ.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        (HEALTHZ.replace(b"GET", b"POST"), 405),
        (HEALTHZ.replace(b"healthz", b""), 404),
        (b"\r\n\r\n", 400),
        (b"\xff\x00 HTTP/1.\r\n\r\n", 400),
        (b"*1\r\n$4\r\nPING\r\n\r\n", 400),
    ],
)
async def test_every_head_has_one_answer_and_the_connection_ends(sent: bytes, status: int) -> None:
    async with probe_port(600.0) as port:
        received = await told(port, sent)
        head, _, body = received.partition(b"\r\n\r\n")
        assert received.count(b"HTTP/1.1 ") == 1
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert f"content-length: {len(body)}".encode() in head
        told_to_head = await told(port, HEALTHZ.replace(b"GET", b"HEAD"))
        assert (told_to_head[:15], told_to_head[-4:]) == (b"HTTP/1.1 200 OK", b"\r\n\r\n")


async def test_connections_are_bounded_and_a_probe_that_asks_at_once_is_heard() -> None:
    async with probe_port(600.0) as port:  # nothing is closed for its age here
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 10)]
        await asyncio.gather(*(all_from(reader) for reader, _ in silent[:10]))
        assert (await told(port, HEALTHZ)).startswith(b"HTTP/1.1 200")
        await all_from(silent[10][0])
        assert (await told(port, HEALTHZ)).startswith(b"HTTP/1.1 200")
        for _, one in silent:
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
