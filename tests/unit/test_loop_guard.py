"""The guard of tests/loop_guard.py itself."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import holds
import long_steps
import loop_guard
from faults.scene import inside
from integration.processes import environment
from noetl_worker.process import event_loop
from patience import PATIENCE_S

LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_guard, "LIMIT_S", 0.04)
    monkeypatch.setattr(holds, "HOLDS_TIMES", True)


def busy(limits: float = 1.5) -> None:
    until = time.thread_time() + limits * loop_guard.LIMIT_S
    while time.thread_time() < until:
        pass


async def in_a_task() -> None:
    await asyncio.sleep(0)
    busy()


async def in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(busy)
    await asyncio.sleep(0.01)


async def in_a_protocol() -> None:
    """Of a server's connection: what it does with what it has received."""

    class BusyWhenTold(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            busy()
            self.transport.close()

    async with await asyncio.get_running_loop().create_server(BusyWhenTold, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        await reader.read()
        writer.close()


async def in_a_timer() -> None:
    asyncio.get_running_loop().call_later(0, busy)
    await asyncio.sleep(0.05)


async def off_the_loop() -> None:
    await asyncio.to_thread(busy)


async def on_the_wall() -> None:
    time.sleep(5 * loop_guard.LIMIT_S)  # noqa: ASYNC251 - that is the point


async def in_pieces() -> None:
    for _ in range(3):
        busy(0.5)
        await asyncio.sleep(0)


def outcome(main: Callable[[], Any], loop: str, *, marker: object = None) -> str | None:
    """What the guard says of a test that runs this."""
    item: Any = SimpleNamespace(nodeid="a test", path=Path(__file__), get_closest_marker=lambda name: marker)
    around = long_steps.guarded(item)
    next(around)
    event_loop.run(main(), loop)
    try:
        next(around, None)
    except AssertionError as error:
        return str(error)
    finally:
        loop_guard.begin("")
    return None


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("main", [in_a_task, in_a_callback, in_a_timer, in_a_protocol])
def test_long_step_fails_the_test_that_caused_it(main: Callable[[], Any], loop: str) -> None:
    said = outcome(main, loop)
    assert said is not None
    assert "busy" in said or "in_a_task" in said
    assert outcome(main, loop, marker=object()) is None


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("main", [off_the_loop, on_the_wall, in_pieces])
def test_threads_waits_and_work_in_pieces_pass(main: Callable[[], Any], loop: str) -> None:
    assert outcome(main, loop) is None


def test_long_step_is_listed_and_fails_nothing_where_times_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "HOLDS_TIMES", False)
    assert outcome(in_a_task, "asyncio") is None
    item: Any = SimpleNamespace(user_properties=[])
    long_steps.keep_for_summary(item)
    report: Any = SimpleNamespace(nodeid="a test", when="teardown", user_properties=item.user_properties)
    (line,) = long_steps.summary([report])
    assert line.startswith("a test: a loop's thread was busy for more than 40 ms: ")


class DevControlPlane:
    async def store(self) -> None:
        await in_a_task()


def test_step_of_the_development_plane_passes() -> None:
    assert outcome(DevControlPlane().store, "asyncio") is None


@pytest.mark.xfail(raises=AssertionError, strict=True, reason="the guard fails a test of the plug-in, on its own loop")
async def test_long_step_of_an_async_test_fails_it() -> None:
    await in_a_task()


@pytest.mark.xfail(raises=AssertionError, strict=True, reason="a callback that an async test left on its loop")
async def test_long_step_beside_an_async_test_fails_it() -> None:
    await in_a_callback()


def test_garbage_collection_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            busy()

    async def collects() -> None:
        gc.collect()

    gc.callbacks.append(slow)  # after the guard's own: within what it measures
    try:
        assert outcome(collects, "asyncio") is None
    finally:
        gc.callbacks.remove(slow)


@pytest.mark.parametrize("loop", LOOPS)
def test_process_of_a_worker_writes_its_long_steps_to_a_file(loop: str, tmp_path: Path) -> None:
    """As the fault suite starts it: the guard comes in by sitecustomize.py."""
    program = f"""
import time
from noetl_worker.process import event_loop

async def too_long():
    began_s = time.thread_time()
    while time.thread_time() < began_s + 0.5:
        pass

event_loop.run(too_long(), {loop!r})
"""
    subprocess.run(
        [sys.executable, "-c", program, "noetl_worker"],
        env=environment(NOETL_WORKER_ISOLATION="off", **inside(STEPS=str(tmp_path / "steps"))),
        check=True,
        timeout=PATIENCE_S,
    )
    assert "ms of CPU in one step" in (tmp_path / "steps").read_text()
