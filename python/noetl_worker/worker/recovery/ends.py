"""The choice of what is asked about terminal events, by plane."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.report.ends import Ends
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.worker.recovery.python_ends import PythonEnds
from noetl_worker.worker.recovery.recent_batches import RecentBatches
from noetl_worker.worker.recovery.rust_ends import RustEnds


def ends_of(ids: EventIds, batches: RecentBatches | None = None) -> Mapping[Dialect, Ends]:
    """Return what a worker asks each plane; `ids` are given to its events."""
    both: tuple[Ends, ...] = (PythonEnds(batches or RecentBatches()), RustEnds(ids))
    return {ends.dialect: ends for ends in both}
