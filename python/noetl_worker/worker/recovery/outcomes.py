"""The handling of terminal events for each kind of plane."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_worker.models.wire import Dialect
from noetl_worker.pipeline.report.outcomes import Outcomes
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.worker.recovery.python_outcomes import PythonOutcomes
from noetl_worker.worker.recovery.recent_batches import RecentBatches
from noetl_worker.worker.recovery.rust_outcomes import RustOutcomes


def outcomes_by_dialect(ids: EventIds, batches: RecentBatches | None = None) -> Mapping[Dialect, Outcomes]:
    """Return the handling of terminal events for each kind of plane.

    Args:
        ids: makes the ids of the Rust plane's last events.
        batches: remembers the batches of the Python plane; by default a new one.
    """
    both: tuple[Outcomes, ...] = (PythonOutcomes(batches or RecentBatches()), RustOutcomes(ids))
    return {ends.dialect: ends for ends in both}
