"""Interface for the parts of sending terminal events that differ between the Python and the Rust plane."""

from __future__ import annotations

from typing import Protocol

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response


class Outcomes(Protocol):
    """Interface for the parts of sending terminal events that differ between planes: event ids, and finding out whether
    the plane has the events. All commands of a worker share one object for each dialect, and call it concurrently."""

    dialect: Dialect

    def assign_event_id(self, event_set: EventSet) -> None:
        """Set the event id in the next request of an event set, if the plane takes this id from the worker."""

    async def judge_by_records(
        self, plane: Plane, event_set: EventSet, answer: Response, how: SendStatus
    ) -> SendStatus:
        """Ask the plane's records what an unclear answer (NOT_CLEAR) meant. Return ACCEPTED (the plane has the events),
        PASSING (send again) or UNCERTAIN (send again for a limited time)."""

    def accepted(self, plane: Plane, event_set: EventSet, answer: Response) -> None:
        """Note that the plane has accepted the request just sent. A later check can then find out whether the plane
        processes the events of this request."""

    async def is_stored(self, plane: Plane, event_set: EventSet) -> bool:
        """Return whether the plane has stored the events of a request to which the worker got no answer.

        If True, the set goes on to its next request. In one case this is a replacement of the stored batch: if the
        Python plane will never process the batch, and allows a replacement.
        """

    async def stop(self) -> None: ...
