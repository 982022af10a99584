"""The server of probes and metrics, on both event loops: who gives up before the answer is no error."""

from __future__ import annotations

import asyncio
import socket

import pytest

import loops
from noetl_worker.observability.probe_server import ProbeServer

pytestmark = pytest.mark.parametrize("anyio_backend", loops.BOTH)


async def test_client_that_is_gone_before_its_answer_leaves_no_error() -> None:
    """A kubelet waits for a second; the page of a supervisor asks its processes."""
    is_asked, is_answered = asyncio.Event(), asyncio.Event()

    async def slow() -> tuple[int, bytes]:
        is_asked.set()
        await is_answered.wait()
        return 200, b"ok"

    server = ProbeServer({"/slow": slow})
    await server.open("127.0.0.1:0")
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        await is_asked.wait()
        [answering] = [task for task in asyncio.all_tasks() if "_connected" in repr(task.get_coro())]
        writer.transport.abort()
        [connection] = server.connections
        while not connection.is_closing():
            await asyncio.sleep(0)
        is_answered.set()
        await answering
    finally:
        await server.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("bind", ["[::1]:0", "::1:0", "[::]:0", ":::0"])
async def test_probes_listen_on_ipv6(bind: str) -> None:
    """A kubelet of a cluster without IPv4 reaches nothing else."""
    server = ProbeServer({})
    await server.open(bind)
    try:
        reader, writer = await asyncio.open_connection("::1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
    finally:
        await server.close()
