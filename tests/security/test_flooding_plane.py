"""A trusted control plane floods its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from integration.house import House, house, noops
from integration.processes import until
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from noetl_worker.models.claim import ClaimRefused
from noetl_worker.pipeline.claim.claim import read_claim
from noetl_worker.remote.transport.transport import Response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "chunks of one byte": (CHUNKED, b"1\r\n \r\n"),
}


class Flood:
    """A server whose answer to anything does not end. It gives up at a gigabyte."""

    def __init__(self, head: bytes, part: bytes) -> None:
        self.head, self.block = head, part * (1 << 13)
        self.asked = self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            writer.write(self.head)
            while self.sent < 1 << 30:
                writer.write(self.block)
                await writer.drain()
                self.sent += len(self.block)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # as it should end
        finally:
            writer.close()


@asynccontextmanager
async def flooding(kind: str) -> AsyncIterator[tuple[House, DevControlPlane, Flood]]:
    """A house without a worker, and a plane that publishes commands and names the flood as their server."""
    flood = Flood(*FLOODS[kind])
    server = await asyncio.start_server(flood.answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with house(worker=False) as home:
            forged = PlaneSettings(dialect=Dialect.PYTHON, public_url=url)
            async with DevControlPlane(forged, nats_url=home.nats.url) as other:
                yield home, other, flood
    finally:
        server.close()


@pytest.mark.parametrize("kind", FLOODS)
async def test_plane_that_floods_its_answers_holds_up_no_command_of_another(kind: str) -> None:
    """Endless trailers, interim answers or one-byte chunks at every claim."""
    async with flooding(kind) as (home, other, flood):
        url = other.settings.public_url
        assert url is not None
        worker = await home.start_worker(NOETL_WORKER_TRUSTED_SERVERS=url, NOETL_CONTROL_PLANE="python")
        await other.create_commands(noops(48))
        await until(lambda: flood.asked >= 3, "asked")
        issued = await home.plane.create_commands(noops(48))
        await home.wait_terminal(*(one.event_id for one in issued))
        assert flood.sent < flood.asked << 24  # what is read of an answer, and the buffers of the system
        assert worker.deliveries.settled["nak:retry_later"] >= 1


async def test_loop_turns_while_a_large_claim_is_read() -> None:
    """A claim has 3 MB of `[],`, the result of another step: a parser alone would hold the loop for a second."""
    claim = b'{"context": {"before": [' + b"[]," * (1 << 20) + b"[]]}}"
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    try:
        answer = await Response(200, {}, claim).read()
    finally:
        turning.cancel()
    assert turns > 10, turns
    value = answer.json()
    assert isinstance(value, dict)
    assert len(value["context"]["before"]) == (1 << 20) + 1


async def test_claim_beyond_the_memory_of_one_command_is_refused() -> None:
    """48 MB of `[],` are a gigabyte of lists."""
    claim = b'{"context": {"before": [' + b"[]," * (1 << 24) + b"[]]}}"
    answer = await Response(200, {}, claim).read()
    outcome = read_claim(answer, Dialect.RUST)
    assert isinstance(outcome, ClaimRefused)
    assert "MiB of memory" in outcome.reason
