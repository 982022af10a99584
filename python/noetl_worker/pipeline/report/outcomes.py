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
        """Give the next event its id, if the plane takes the id from the worker."""

    async def judge_by_records(self, plane: Plane, end: EventSet, answer: Response, how: SendStatus) -> SendStatus:
        """Ask the plane's records what an unclear answer (NOT_CLEAR) meant. Return ACCEPTED, PASSING or UNCERTAIN."""

    def accepted(self, plane: Plane, end: EventSet, answer: Response) -> None:
        """Note that the plane has accepted the next request of these events."""

    async def is_stored(self, plane: Plane, end: EventSet) -> bool:
        """Return whether the plane has stored these events, although their request had no answer.

        If the plane has stored the events, the request is noted as accepted. On the Python plane, the set may instead
        become a replacement of the stored batch. The replacement is still to be sent.
        """

    async def stop(self) -> None: ...
