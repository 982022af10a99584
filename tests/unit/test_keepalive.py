"""Which deliveries are kept alive, and until when; how the thread that does it ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
import structlog

import virtual_time
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.delivery.keepalive import InProgress, Keepalive
from noetl_worker.process import event_loop
from patience import PATIENCE_S, until
from unit.planes import settings

REPLY = "$JS.ACK.NOETL_COMMANDS.noetl_worker.1.2.2.1790000022953000000.0"
DIED = "keepalive_died"


# ── deliveries ──────────────────────────────────────────────────────────────────────────────────


def test_two_deliveries_with_one_reply_subject_are_kept_until_the_second_is_settled() -> None:
    """A durable that is made again counts from 1 again (found by the simulator)."""
    deliveries = InProgress(30.0)
    deliveries.track(REPLY, 0.0)
    deliveries.track(REPLY, 1.0)
    deliveries.untrack(REPLY)
    assert deliveries.is_expired(REPLY, 60.0)  # it is still known
    deliveries.untrack(REPLY)
    assert not deliveries.is_expired(REPLY, 60.0)


class Link:
    """A connection, and its client: `flush` does what the test says."""

    is_connected, is_closed = True, False

    def __init__(self, flush: Callable[[], Any]) -> None:
        self.client, self._flush = self, flush
        self.sent: list[str] = []

    async def publish(self, reply: str, _: bytes) -> None:
        self.sent.append(reply)

    async def flush(self, timeout: float) -> None:
        await self._flush()


@virtual_time.PASSES
async def test_stop_that_meets_the_answer_to_a_beat_ends_it_at_once() -> None:
    """nats-py's flush waits with asyncio.wait_for, which before 3.12 swallows a cancellation that meets its answer."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    flushing, stop = asyncio.Event(), asyncio.Event()

    async def flush() -> None:
        flushing.set()
        await asyncio.wait_for(answer, 2)

    deliveries = InProgress(0.1)
    deliveries.track(REPLY, 0.0)
    extending = asyncio.ensure_future(deliveries.extend_until(stop, cast(Any, Link(flush)), settings()))
    await flushing.wait()
    began = time.monotonic()
    stop.set()
    answer.set_result(None)
    await event_loop.end(extending)
    assert time.monotonic() == began


async def test_delivery_that_is_tracked_while_the_thread_looks_does_no_harm() -> None:
    """Before 3.12 garbage is collected in the midst of list(dict.items()), and that lets the other thread in."""
    deliveries, stop, numbers = InProgress(0.3), asyncio.Event(), itertools.count()
    for number in range(1000):
        deliveries.track(f"reply {number}", 0.0)

    async def flush() -> None:
        stop.set()

    def collecting(phase: str, _: Any) -> None:
        if phase == "start":
            deliveries.track(f"new {next(numbers)}", 0.0)

    link, thresholds = Link(flush), gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(50)
    try:
        await deliveries.extend_until(stop, cast(Any, link), settings())
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*thresholds)
    assert {f"reply {number}" for number in range(1000)} <= set(link.sent)


# ── the thread ──────────────────────────────────────────────────────────────────────────────────


class Server:
    """A NATS server for one connection."""

    def __init__(self) -> None:
        self.accepted, self.may_answer, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.settings, self.health = settings(), Health()
        self.own_ports: set[int] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.set()
        await self.may_answer.wait()
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()
        self.closed.set()

    def keepalive(self, identity: Any = None) -> Keepalive:
        identity = identity or SimpleNamespace(unique="w", name_for=lambda _: "w")
        return Keepalive(self.settings, self.health, identity, self.own_ports)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    here = Server()
    listening = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.settings = settings(
        NATS_URL=f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}",
        NOETL_SERVER_URL="http://127.0.0.1:9",
        NOETL_CONTROL_PLANE="python",
    )
    yield here
    listening.close()  # not `async with`: that waits for connections, which a test that fails leaves behind


async def started(keepalive: Keepalive) -> None:
    await keepalive.serve()
    await keepalive.start()


async def ended_by_itself() -> None:
    for thread in threading.enumerate():
        if thread.name == "noetl-keepalive":
            await asyncio.to_thread(thread.join, PATIENCE_S)


@asynccontextmanager
async def logged(at: Callable[[], Any] = lambda: None) -> AsyncIterator[list[Any]]:
    """The errors why a keepalive has died; `at` is called in its thread before it goes on."""
    errors: list[Any] = []

    def take(_: Any, __: str, line: Any) -> Any:
        if line["event"] == DIED:
            errors.append(line["error"])
            at()
        raise structlog.DropEvent

    configured = structlog.get_config()
    structlog.configure(processors=[take])
    try:
        yield errors
    finally:
        structlog.configure(**configured)


async def test_plane_that_never_answers_is_down_though_it_is_not_known_which_it_is(server: Server) -> None:
    server.settings = settings(NATS_URL=server.settings.nats_url.reveal(), NOETL_SERVER_URL=server.settings.server_url)
    keepalive = server.keepalive()
    async with logged():
        await started(keepalive)
        await until(lambda: server.health.plane_down is not None, "plane_down")
        await keepalive.stop()
    assert server.settings.server_url in str(server.health.plane_down)


@pytest.mark.parametrize("part", ["the deliveries", "the registry"])
async def test_bug_in_a_part_of_it_ends_the_thread_so_that_the_worker_notices(part: str, server: Server) -> None:
    of_registry = part == "the registry"
    keepalive = server.keepalive(SimpleNamespace(unique="w") if of_registry else None)  # it has no name there
    if not of_registry:
        keepalive.in_progress.track(REPLY, cast(Any, "no time"))
    async with logged() as errors:
        await started(keepalive)
        await ended_by_itself()
    assert not keepalive.is_alive()
    assert [("name_for" in error, "str" in error) for error in errors] == [(of_registry, not of_registry)]
    await server.closed.wait()


async def test_stop_that_meets_the_end_of_the_thread_raises_nothing(server: Server) -> None:
    """Its loop is closed, and it lives still to log why: the worker's own outcome was replaced by that."""
    dying, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        dying.set()
        may_end.wait(PATIENCE_S)

    keepalive = server.keepalive(SimpleNamespace(unique="w"))
    async with logged(hold):
        await started(keepalive)
        await asyncio.to_thread(dying.wait, PATIENCE_S)
        asyncio.get_running_loop().call_later(0.1, may_end.set)
        await keepalive.stop()
    assert not keepalive.is_alive()


async def test_threads_of_tools_that_do_not_end_do_not_hold_up_the_stop(server: Server) -> None:
    keepalive = server.keepalive()
    tool_may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    tool = loop.run_in_executor(None, tool_may_end.wait)
    await started(keepalive)
    stopping = asyncio.ensure_future(keepalive.stop())
    done, _ = await asyncio.wait({stopping}, timeout=PATIENCE_S)
    tool_may_end.set()
    await tool
    assert done
    assert not keepalive.is_alive()


async def stopped_at_its_start(server: Server, at: Callable[[], Awaitable[Any]], go_on: Callable[[], None]) -> None:
    """The start is cancelled when `at` is over; its thread goes on while it is stopped."""
    keepalive = server.keepalive()
    async with logged() as errors:
        starting = asyncio.ensure_future(started(keepalive))
        await at()
        starting.cancel()
        await asyncio.wait({starting})
        asyncio.get_running_loop().call_later(0.1, go_on)
        await keepalive.stop()
        if server.accepted.is_set():
            await server.closed.wait()
    assert (keepalive.is_alive(), errors) == (False, [])


async def test_thread_whose_start_was_cancelled_puts_everything_away_and_ends(server: Server) -> None:
    server.may_answer.clear()
    await stopped_at_its_start(server, server.accepted.wait, server.may_answer.set)


async def test_thread_that_was_stopped_before_it_began_puts_everything_away_and_ends(server: Server) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def hold(_: FrameType, __: str, ___: Any) -> None:
        """Called in the thread before its first function."""
        sys.setprofile(None)
        begun.set()
        may_go_on.wait(PATIENCE_S)

    async def begin() -> None:
        await asyncio.sleep(0)
        threading.setprofile(None)  # type: ignore[arg-type]
        await asyncio.to_thread(begun.wait, PATIENCE_S)

    threading.setprofile(hold)
    await stopped_at_its_start(server, begin, may_go_on.set)
