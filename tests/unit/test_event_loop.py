"""The event loop's end: no task that `main` left can hold it up."""

from __future__ import annotations

import asyncio
import sys

import pytest

from noetl_worker.process import event_loop


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_task_that_misses_its_first_cancellation_ends_with_the_loop(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while a session ends leaves the reconnection of nats-py, which has no last attempt."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    else:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    left: list[asyncio.Task[None]] = []

    async def reconnect() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def session() -> None:
        left.append(asyncio.ensure_future(reconnect()))
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        event_loop.run(session())
    assert left[0].cancelled()
