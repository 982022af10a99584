"""Which deliveries are kept alive, and until when."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from noetl_worker.delivery import keepalive as keepalive_module
from noetl_worker.delivery.keepalive import Keepalive
from unit.planes import settings

REPLY = "$JS.ACK.NOETL_COMMANDS.noetl_worker.1.2.2.1790000022953000000.0"


def test_two_deliveries_with_one_reply_subject_are_kept_until_the_second_is_settled() -> None:
    """A durable that is made again counts from 1 again (found by the simulator)."""
    keepalive = Keepalive(settings(), cast(Any, None), cast(Any, None), version="0", engine="rust")
    keepalive.track(REPLY, 0.0)
    keepalive.track(REPLY, 1.0)
    keepalive.untrack(REPLY)
    assert keepalive.is_expired(REPLY, time.monotonic())  # it is still known
    keepalive.untrack(REPLY)
    assert not keepalive.is_expired(REPLY, time.monotonic())


@pytest.mark.parametrize("part", ["_beat_until_stopped", "_registry"])
async def test_bug_in_a_part_of_it_ends_the_thread_so_that_the_worker_notices(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    async def connection(*_: Any, **__: Any) -> Any:
        async def close() -> None:
            closed.append(True)

        return SimpleNamespace(close=close, client=SimpleNamespace(is_closed=False), is_connected=True)

    async def bug(*_: Any) -> None:
        raise RuntimeError("a bug")

    async def waits(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(keepalive_module, "connect", connection)
    for name in ("_beat_until_stopped", "_registry"):
        monkeypatch.setattr(Keepalive, name, bug if name == part else waits)
    identity = cast(Any, SimpleNamespace(unique="w"))
    keepalive = Keepalive(settings(), cast(Any, None), identity, version="0", engine="rust")
    await keepalive.start()
    await asyncio.to_thread(keepalive._thread.join, 10)
    assert not keepalive.is_alive()
    assert closed == [True]


async def test_stop_that_meets_the_answer_to_a_beat_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py's flush waits with asyncio.wait_for, which before 3.12 swallows a cancellation that meets its answer."""
    beating, links = threading.Event(), []

    class Link:
        is_connected, is_closed = True, False

        def __init__(self) -> None:
            self.client = self
            self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answer(self) -> None:
            if not self._answer.done():
                self._answer.set_result(None)

        async def publish(self, *_: Any) -> None:
            return None

        async def flush(self, timeout: float) -> None:
            beating.set()
            await asyncio.wait_for(self._answer, timeout)

        async def close(self) -> None:
            return None

    async def connection(*_: Any, **__: Any) -> Any:
        links.append(Link())
        return links[0]

    async def end(task: asyncio.Task[Any]) -> Any:
        links[0].answer()
        return await ended(task)

    async def registry(*_: Any) -> None:
        await asyncio.Event().wait()

    ended = keepalive_module._result_at_end
    monkeypatch.setattr(keepalive_module, "connect", connection)
    monkeypatch.setattr(keepalive_module, "_result_at_end", end)
    monkeypatch.setattr(Keepalive, "_registry", registry)
    identity = cast(Any, SimpleNamespace(unique="w"))
    keepalive = Keepalive(settings(), cast(Any, None), identity, version="0", engine="rust")
    keepalive.set_ack_wait(0.1)
    keepalive.track(REPLY, 0.0)
    await keepalive.start()
    await asyncio.to_thread(beating.wait, 10)
    await keepalive.stop()
    assert not keepalive.is_alive()


def quiet(monkeypatch: pytest.MonkeyPatch, connect: Any = None) -> Keepalive:
    """A keepalive that beats nothing and registers nowhere."""

    async def connection(*_: Any, **__: Any) -> Any:
        async def close() -> None:
            return None

        return SimpleNamespace(close=close, client=SimpleNamespace(is_closed=False), is_connected=True)

    async def waits(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(keepalive_module, "connect", connect or connection)
    for name in ("_beat_until_stopped", "_registry"):
        monkeypatch.setattr(Keepalive, name, waits)
    identity = cast(Any, SimpleNamespace(unique="w"))
    return Keepalive(settings(), cast(Any, None), identity, version="0", engine="rust")


async def test_stop_that_meets_the_end_of_the_thread_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop is closed, and it lives still to log why: the worker's own outcome was replaced by that."""
    dying, may_end = threading.Event(), threading.Event()

    async def bug(*_: Any) -> None:
        raise RuntimeError("a bug")

    def log(*_: Any, **__: Any) -> None:
        dying.set()
        may_end.wait(10)

    keepalive = quiet(monkeypatch)
    monkeypatch.setattr(Keepalive, "_registry", bug)
    monkeypatch.setattr(keepalive_module, "log", SimpleNamespace(exception=log))
    await keepalive.start()
    await asyncio.to_thread(dying.wait, 10)
    asyncio.get_running_loop().call_later(0.1, may_end.set)
    await keepalive.stop()
    assert not keepalive.is_alive()


async def test_threads_of_tools_that_do_not_end_do_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    keepalive = quiet(monkeypatch)
    tool_may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    tool = loop.run_in_executor(None, tool_may_end.wait, 30)
    await keepalive.start()
    stopping = asyncio.ensure_future(keepalive.stop())
    done, _ = await asyncio.wait({stopping}, timeout=10)
    tool_may_end.set()
    await tool
    assert done
    assert not keepalive.is_alive()


@pytest.mark.parametrize("has_begun", [False, True])
async def test_thread_whose_start_was_cancelled_puts_everything_away_and_ends(
    has_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    closed: list[bool] = []
    died: list[str] = []

    async def connect(*_: Any, **__: Any) -> Any:
        async def close() -> None:
            closed.append(True)

        if has_begun:
            begun.set()
            may_go_on.wait(10)
        return SimpleNamespace(close=close, client=SimpleNamespace(is_closed=False), is_connected=True)

    def late(self: Keepalive) -> None:
        begun.set()
        may_go_on.wait(10)
        run(self)

    run = Keepalive._run
    if not has_begun:
        monkeypatch.setattr(Keepalive, "_run", late)
    monkeypatch.setattr(keepalive_module, "log", SimpleNamespace(exception=lambda event, **_: died.append(event)))
    keepalive = quiet(monkeypatch, connect)
    starting = asyncio.ensure_future(keepalive.start())
    await asyncio.to_thread(begun.wait, 10)
    starting.cancel()
    await asyncio.wait({starting})
    asyncio.get_running_loop().call_later(0.1, may_go_on.set)
    await keepalive.stop()
    await asyncio.to_thread(keepalive._thread.join, 5)
    assert (keepalive.is_alive(), died, closed) == (False, [], [True])


async def test_delivery_that_is_tracked_while_the_thread_looks_for_the_due_ones_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before 3.12 garbage is collected in the midst of list(dict.items()), and that lets the other thread in."""
    keepalive = quiet(monkeypatch)
    for number in range(1000):
        keepalive.track(f"reply {number}", 0.0)
    sent: list[str] = []

    async def publish(reply: str, _: bytes) -> None:
        sent.append(reply)

    async def flush(timeout: float) -> None:
        return None

    def collecting(phase: str, _: Any) -> None:
        if phase == "start":
            keepalive.track(f"new {len(keepalive._beats)}", 0.0)

    thresholds = gc.get_threshold()
    client = SimpleNamespace(publish=publish, flush=flush, is_closed=False)
    gc.callbacks.append(collecting)
    gc.set_threshold(50)
    try:
        await keepalive._beat_once(cast(Any, SimpleNamespace(client=client, is_connected=True)))
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*thresholds)
    assert {f"reply {number}" for number in range(1000)} <= set(sent)
