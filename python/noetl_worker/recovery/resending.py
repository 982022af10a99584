"""What the Python plane has lost after it had accepted it, sent again (plane/python/recent_batches.py)."""

from __future__ import annotations

import asyncio

from noetl_worker.command.handover import ClaimedOnce
from noetl_worker.errors import ClaimLost, ControlPlaneError, Interrupted
from noetl_worker.outbox.event_set import EventSet
from noetl_worker.plane.python.recent_batches import LOOK_ADVICE, LostEnd, not_rescued
from noetl_worker.process import event_loop
from noetl_worker.report.emitter import Emitter


class Resending:
    """Takes the ends from `lost` until it is stopped; each is sent by itself."""

    def __init__(self, lost: asyncio.Queue[LostEnd], emitter: Emitter) -> None:
        self._lost, self._emitter = lost, emitter
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking = asyncio.ensure_future(self._take())

    async def stop(self) -> None:
        """What is being sent is in the outbox by then, if the plane has not taken it."""
        await event_loop.end(self._taking, *self._tasks)

    async def _take(self) -> None:
        while True:
            task = asyncio.ensure_future(self._send(await self._lost.get()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, lost: LostEnd) -> None:
        """Its claim is asked first, as for all that is late; a rescue is for a command that nobody else gets."""
        plane, end, batch = lost
        assert isinstance(end, EventSet)  # what the emitter has sent
        ownership = ClaimedOnce.asked_first(plane, end)
        try:
            await self._emitter.deliver(plane, end, ownership)
        except (ClaimLost, Interrupted):
            pass  # the emitter has logged it, or has left it to the next worker
        except ControlPlaneError as error:
            not_rescued(end, batch, LOOK_ADVICE, str(error))
