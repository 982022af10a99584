"""Which event loop runs us (uvloop where it is installed, else the standard one); how tasks end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from noetl_worker.process.threads import WORK, WORK_THREADS, Threads

T = TypeVar("T")
_AGAIN_S: Final = 2.0
"""Longer than what is cancelled needs to put things away."""


def give(waiting: deque[asyncio.Future[T]], value: T) -> bool:
    """Give it to the first of them that still waits; False when nobody does."""
    while waiting:
        place = waiting.popleft()
        if not place.done():
            place.set_result(value)
            return True
    return False


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end; one owner has at most a quarter of the loop's threads."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_with_threads(main))
    result: T = uvloop.run(_with_threads(main))
    return result


async def _with_threads(main: Coroutine[Any, Any, T]) -> T:
    asyncio.get_running_loop().set_default_executor(Threads(WORK, WORK_THREADS))
    return await main


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel them until they have ended; what they end with is left in them.

    Once is not enough: before 3.12 asyncio.wait_for, as inside of nats-py, swallows a cancellation that meets what it
    waits for (cpython #86296), and a loop that had asked the server went on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
