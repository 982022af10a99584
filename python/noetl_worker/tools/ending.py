"""A wait for work that must end before the waiting task goes on, even if the waiting task is cancelled."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def ended(running: asyncio.Future[T]) -> T:
    """Return the result of `running`. If the waiting task is cancelled, even repeatedly, wait on and raise
    CancelledError after `running` ends.

    With `asyncio.shield` the waiting task would stop at once. The task would then free resources that `running` still
    uses.
    """
    is_cancelled = False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            is_cancelled = True
    if not is_cancelled:
        return running.result()
    if not running.cancelled():
        running.exception()
    raise asyncio.CancelledError
