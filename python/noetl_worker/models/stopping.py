"""The stop of a worker: a level that is asked for once and stays, waits that it shortens, and how long is left.

drain       nothing more is pulled; what runs goes on, for NOETL_WORKER_DRAIN_TIMEOUT_S
grace over  tools are interrupted, waits end, what is reported gets one more try; then everything is returned
hard        what is still under way is cut off
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, Final, TypeVar

T = TypeVar("T")
CLAIM_S: Final = 3.0
"""How long a claim that is under way may take once the grace is over."""
REPORT_S: Final = 3.0
"""The same for the events of an outcome; then the outbox has them."""
TOOL_S: Final = 5.0
"""How long an interrupted tool has for its partial output; then it is left behind."""
KEEPALIVE_S: Final = 5.0
"""How long the keepalive has after all that, to deregister and to close its connection."""


class StopLevel(IntEnum):
    NONE = 0
    DRAIN = 1
    GRACE_OVER = 2
    HARD = 3


class Stopping:
    """How far the stop of this worker has come."""

    def __init__(self) -> None:
        self.level = StopLevel.NONE
        self._reached = {level: asyncio.Event() for level in StopLevel if level}

    def reach(self, level: StopLevel) -> None:
        """Go to this level; never back."""
        for reached, event in self._reached.items():
            if reached <= level:
                event.set()
        self.level = max(self.level, level)

    @property
    def is_draining(self) -> bool:
        return self.level >= StopLevel.DRAIN

    @property
    def is_grace_over(self) -> bool:
        return self.level >= StopLevel.GRACE_OVER

    @property
    def is_hard(self) -> bool:
        return self.level >= StopLevel.HARD

    async def reached(self, level: StopLevel) -> None:
        """Wait for this level."""
        await self._reached[level].wait()

    async def sleep(
        self, seconds: float, *awaited: asyncio.Future[Any], until: StopLevel = StopLevel.GRACE_OVER
    ) -> None:
        """Sleep, at most until one of these futures is done, or the stop comes to `until`."""
        stopped = asyncio.ensure_future(self._reached[until].wait())
        try:
            await asyncio.wait({stopped, *awaited}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T | None:
        """Its result; None when a stop comes first: a start that waits for a server must not outlast a SIGTERM."""
        task, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(self.reached(StopLevel.DRAIN))
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
        # What was made in the very step of the stop is the caller's, to be closed.
        return None if task.cancelled() or task.exception() is not None else task.result()
