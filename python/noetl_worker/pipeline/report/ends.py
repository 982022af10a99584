"""Questions that the emitter asks about terminal events beside the answers to them; each plane has its own."""

from __future__ import annotations

from typing import Protocol

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response


class Ends(Protocol):
    """Terminal events on one plane. Shared by all commands of a worker, and called concurrently."""

    dialect: Dialect

    def arm(self, end: EventSet) -> None:
        """Give the next event its id, where the plane takes it from us."""

    async def look_into(self, plane: Plane, end: EventSet, answer: Response, how: SendStatus) -> SendStatus:
        """What an answer means that is in NOT_CLEAR, by the plane's own records: ACCEPTED, PASSING or UNCERTAIN."""

    def accepted(self, plane: Plane, end: EventSet, answer: Response) -> None:
        """The plane has taken the next request of this end."""

    async def is_stored(self, plane: Plane, end: EventSet) -> bool:
        """Whether a command that is over, says the plane, is over by this end, whose request had no answer. Then
        nothing is left to be sent of it, or what brings it on."""

    async def stop(self) -> None: ...
