"""Waiting for what must have ended before its owner goes on, whatever cancels the owner."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def ended(running: asyncio.Future[T]) -> T:
    """Its result; a cancellation, the second one too, goes on only after its end.

    `asyncio.shield` keeps the inner one alive and lets the owner go: what both use would be free too early.
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
