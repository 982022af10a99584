"""The choice of the code that handles terminal events: one object for the Python plane, one for the Rust plane."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.report.outcomes import Outcomes
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.worker.recovery.python_outcomes import PythonOutcomes
from noetl_worker.worker.recovery.recent_batches import RecentBatches
from noetl_worker.worker.recovery.rust_outcomes import RustOutcomes


def outcomes_by_dialect(ids: EventIds, batches: RecentBatches | None = None) -> Mapping[Dialect, Outcomes]:
    """Return the objects that handle terminal events, one for each kind of plane.

    Args:
        ids: makes the id of a command's last event on the Rust plane.
        batches: remembers the event batches that the Python plane has accepted; by default a new object.
    """
    both: tuple[Outcomes, ...] = (PythonOutcomes(batches or RecentBatches()), RustOutcomes(ids))
    return {ends.dialect: ends for ends in both}
