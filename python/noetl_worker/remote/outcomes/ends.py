"""What each plane makes of the ends of commands that it is sent: what the emitter asks beside the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from noetl_worker.models.wire import Dialect
from noetl_worker.remote.outcomes.python_ends import PythonEnds
from noetl_worker.remote.outcomes.recent_batches import RecentBatches
from noetl_worker.remote.outcomes.rust_ends import RustEnds
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.rules import PendingEnd
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response


class Ends(Protocol):
    """Those of one plane; one object for a worker, called concurrently."""

    dialect: Dialect

    def arm(self, end: PendingEnd) -> None:
        """Give the next event its id, where the plane takes it from us."""

    async def look_into(self, plane: Plane, end: PendingEnd, answer: Response, how: SendStatus) -> SendStatus:
        """What an answer means that is in NOT_CLEAR, by the plane's own records: ACCEPTED, PASSING or UNCERTAIN."""

    def accepted(self, plane: Plane, end: PendingEnd, answer: Response) -> None:
        """The plane has taken the next request of this end."""

    async def is_stored(self, plane: Plane, end: PendingEnd) -> bool:
        """Whether a command that is over, says the plane, is over by this end, whose request had no answer. Then
        nothing is left to be sent of it, or what brings it on."""

    async def stop(self) -> None: ...


def ends_of(ids: EventIds, batches: RecentBatches | None = None) -> Mapping[Dialect, Ends]:
    """Those of a worker whose events have these ids."""
    both: tuple[Ends, ...] = (PythonEnds(batches or RecentBatches()), RustEnds(ids))
    return {ends.dialect: ends for ends in both}
