"""Which deliveries are kept alive, and until when."""

from __future__ import annotations

import asyncio
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
