"""Interface of the plane-specific handling of terminal events."""

from __future__ import annotations

from typing import Protocol

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response


class Outcomes(Protocol):
    """Plane-specific handling of terminal events. All commands of a worker share one object for each plane, and call it
    concurrently."""

    dialect: Dialect

    def assign_event_id(self, end: EventSet) -> None:
        """Set the id of the set's next event, if the plane takes the id from the worker."""

    async def judge_by_records(self, plane: Plane, end: EventSet, answer: Response, how: SendStatus) -> SendStatus:
        """Ask the plane's records what an unclear answer (NOT_CLEAR) meant. Return ACCEPTED (the plane has the events),
        PASSING (send again) or UNCERTAIN (send again for a limited time)."""

    def accepted(self, plane: Plane, end: EventSet, answer: Response) -> None:
        """Note that the plane has accepted the next request of these events."""

    async def is_stored(self, plane: Plane, end: EventSet) -> bool:
        """Return whether the plane has stored these events, although the worker got no answer to their request.

        If so, the set's next request is marked as accepted. On the Python plane, the set may instead become a
        replacement of a stored batch that the plane will never process. The replacement is still to be sent.
        """

    async def stop(self) -> None: ...
