"""Which pools' commands run here: a notification that names another one is not claimed.

A durable that lets one through has other filters than the settings (wire.md T-22), or is shared by two pools.
"""

from __future__ import annotations

import structlog

from noetl_worker.observability import metrics
from noetl_worker.observability.step_log import Warned
from noetl_worker.secrets.redaction import excerpt
from noetl_worker.settings.nats import pool_of
from noetl_worker.settings.settings import Settings

__all__ = ["Pools"]

_MOST_CHARS = 60
log = structlog.get_logger("noetl_worker")


class Pools:
    """The pools of a worker: the literal tokens of its filters, else NOETL_WORKER_POOL_SEGMENTS."""

    def __init__(self, own: frozenset[str], settings: Settings) -> None:
        self._own = own
        self._settings = settings
        self._warned = Warned()

    @classmethod
    def of(cls, settings: Settings) -> Pools | None:
        """None: commands of any pool run here."""
        return None if settings.pools is None else cls(settings.pools, settings)

    def refusal(self, named: str | None, subject: str) -> str | None:
        """Why a notification is not for this worker, counted, and logged once a pool; None if it is, or names no pool.

        Args:
            named: its `execution_pool`, which the Rust plane alone sends.
            subject: where it was published, with the pool in front of the execution's id; a bare one has none.
        """
        pool = named or pool_of(subject, self._settings.nats_subject)
        if not pool or pool in self._own:
            return None
        metrics.FOREIGN_POOL.inc()
        shown, ours = excerpt(pool, _MOST_CHARS), ", ".join(sorted(self._own)) or "none"
        if self._warned.is_new(shown):
            log.warning(
                "foreign_pool",
                pool=shown,
                pools=ours,
                subject=subject,
                filters=self._settings.filters,
                advice="not run here. To run it, name its pool in NATS_FILTER_SUBJECT or NOETL_WORKER_POOL_SEGMENTS; "
                "else put the durable's filters back with `noetl-worker nats ensure --apply`, and give each pool a "
                "durable of its own (NATS_CONSUMER)",
            )
        return f"it is for pool {shown!r}, this worker's: {ours}"
