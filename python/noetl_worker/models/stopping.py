"""The shutdown of a worker: its levels, waits that end when a level is reached, and time limits for the last steps.

The level only rises. The levels are:

drain       the worker pulls no more messages; running commands go on, for NOETL_WORKER_DRAIN_TIMEOUT_S
grace over  the worker interrupts tools, ends waits and tries each report once more; then it returns all commands
hard        the worker cancels everything that still runs
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, Final, TypeVar

T = TypeVar("T")
CLAIM_S: Final = 3.0
"""Seconds that the worker waits for the answer to a claim, once the grace period is over."""
REPORT_S: Final = 3.0
"""Seconds that the worker tries to send a command's terminal events, once the grace period is over. After that the
events stay in the outbox."""
TOOL_S: Final = 5.0
"""Seconds that an interrupted tool has to return its partial output. After that the worker no longer waits for the
tool."""
KEEPALIVE_S: Final = 5.0
"""Seconds that the keepalive thread has to deregister the worker and close its connection, after everything else has
ended."""


class StopLevel(IntEnum):
    NONE = 0
    DRAIN = 1
    GRACE_OVER = 2
    HARD = 3


class Stopping:
    """The current shutdown level of this worker, with waits that end when a level is reached."""

    def __init__(self) -> None:
        self.level = StopLevel.NONE
        self._reached = {level: asyncio.Event() for level in StopLevel if level}

    def reach(self, level: StopLevel) -> None:
        """Raise the shutdown level to `level`. A `level` below the current shutdown level changes nothing."""
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
        """Wait until the shutdown has reached `level`."""
        await self._reached[level].wait()

    async def sleep(
        self, seconds: float, *awaited: asyncio.Future[Any], until: StopLevel = StopLevel.GRACE_OVER
    ) -> None:
        """Sleep for `seconds`. Return sooner if one of the futures `awaited` is done, or if the worker's shutdown
        reaches the level `until`."""
        stopped = asyncio.ensure_future(self._reached[until].wait())
        try:
            await asyncio.wait({stopped, *awaited}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T | None:
        """Return the coroutine's result. If a drain begins first, cancel the coroutine and return None.

        So SIGTERM also ends a worker that still waits for a server during its start.
        """
        task, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(self.reached(StopLevel.DRAIN))
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
        # A result that came in the same step of the loop as the stop goes to the caller, who has to close it.
        return None if task.cancelled() or task.exception() is not None else task.result()
