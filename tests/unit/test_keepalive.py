"""Which deliveries are kept alive, and until when."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from noetl_worker import keepalive as keepalive_module
from noetl_worker.keepalive import Keepalive
from unit.planes import settings

REPLY = "$JS.ACK.NOETL_COMMANDS.noetl_worker.1.2.2.1790000022953000000.0"


def test_two_deliveries_with_one_reply_subject_are_kept_until_the_second_is_settled() -> None:
    """A durable that is made again counts from 1 again (found by the simulator)."""
    keepalive = Keepalive(settings(), cast(Any, None), cast(Any, None), version="0", engine="rust")
    keepalive.track(REPLY, 0.0)
    keepalive.track(REPLY, 1.0)
    keepalive.untrack(REPLY)
    assert keepalive.is_expired(REPLY)  # it is still known
    keepalive.untrack(REPLY)
    assert not keepalive.is_expired(REPLY)


@pytest.mark.parametrize("part", ["_beat_for_ever", "_registry"])
def test_bug_in_a_part_of_it_ends_the_thread_so_that_the_worker_notices(
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
    for name in ("_beat_for_ever", "_registry"):
        monkeypatch.setattr(Keepalive, name, bug if name == part else waits)
    identity = cast(Any, SimpleNamespace(unique="w"))
    keepalive = Keepalive(settings(), cast(Any, None), identity, version="0", engine="rust")

    async def go() -> None:
        await keepalive.start()
        await asyncio.to_thread(keepalive._thread.join, 10)

    asyncio.run(go())
    assert not keepalive.is_alive()
    assert closed == [True]


def test_stop_that_meets_the_answer_to_a_beat_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
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

    ended = keepalive_module._ended
    monkeypatch.setattr(keepalive_module, "connect", connection)
    monkeypatch.setattr(keepalive_module, "_ended", end)
    monkeypatch.setattr(Keepalive, "_registry", registry)
    identity = cast(Any, SimpleNamespace(unique="w"))
    keepalive = Keepalive(settings(), cast(Any, None), identity, version="0", engine="rust")
    keepalive.set_ack_wait(0.1)
    keepalive.track(REPLY, 0.0)

    async def go() -> None:
        await keepalive.start()
        await asyncio.to_thread(beating.wait, 10)
        await keepalive.stop()

    asyncio.run(go())
    assert not keepalive.is_alive()
