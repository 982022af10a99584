"""Waiting for something that must have ended before its owner goes on, even if the owner is cancelled."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def ended(running: asyncio.Future[T]) -> T:
    """Return the result of `running`. A cancellation of the owner, even a repeated one, is raised only after `running`
    ends.

    With `asyncio.shield` the owner would go on while `running` still runs, and would free resources that both use.
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
