"""Which pools' commands run here: a notification that names another one is not claimed.

A durable that lets one through has other filters than the settings (protocol/notification.md#durable), or is shared by
two pools. The pool `system` is different: a filter for all pools brings its commands to every durable, and they are for
its workers alone. The Rust plane 3.54.0 gives the claim of its `__orchestrate__` to whoever asks, and reports the
running execution as FAILED when that fails; both were run.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from noetl_worker.observability import metrics
from noetl_worker.observability.step_log import Warned
from noetl_worker.settings.nats import SYSTEM_POOL, pool_of
from noetl_worker.settings.settings import Settings
from noetl_worker.text.secrets.redaction import excerpt

_MOST_CHARS = 60
_USUAL = "shared"
"""Where the Rust plane puts a command, if nothing else says another pool (protocol/pools.md#subjects)."""
log = structlog.get_logger("noetl_worker")


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    """Why a notification is not for this worker."""

    cause: str
    is_passed_over: bool = False
    """Of the pool `system`, and the settings' own filters bring it: nobody waits for this durable's copy."""


class Pools:
    """Those of a worker: the literal tokens of its filters, else NOETL_WORKER_POOL_SEGMENTS, else any but `system`."""

    def __init__(self, settings: Settings) -> None:
        self._own = settings.pools
        self.welcome = frozenset({settings.nats_subject, *((_USUAL,) if self._own is None else self._own)})
        """A pool that is named, else the subject: nothing has to be asked of these, which nearly all commands have."""
        self._settings = settings
        self._warned = Warned()

    def refusal(self, named: str | None, subject: str) -> PoolRefusal | None:
        """Why a notification is not for this worker, logged once a pool; None if it is, or names no pool.

        Args:
            named: its `execution_pool`, which the Rust plane alone sends.
            subject: where it was published, with the pool in front of the execution's id; a bare one has none.
        """
        pool, own = named or pool_of(subject, self._settings.nats_subject), self._own
        if not pool or (pool != SYSTEM_POOL if own is None else pool in own):
            return None
        if pool == SYSTEM_POOL and self._settings.brings(subject):
            return self._passed_over(subject)
        return self._foreign(pool, subject)

    def _passed_over(self, subject: str) -> PoolRefusal:
        if self._warned.is_new(SYSTEM_POOL):
            log.warning(
                "system_pool_passed_over",
                subject=subject,
                filters=self._settings.filters,
                advice="left to the pool's own workers. A Rust plane goes on by such commands, by default: it needs "
                "a system pool that runs wasm, or NOETL_ORCHESTRATE_PLUGIN_DRIVE=false on the plane. To run playbooks "
                "below system/ here, name the pool in NOETL_WORKER_POOL_SEGMENTS",
            )
        return PoolRefusal(f"it is for pool {SYSTEM_POOL!r}, which the settings do not name", is_passed_over=True)

    def _foreign(self, pool: str, subject: str) -> PoolRefusal:
        metrics.FOREIGN_POOL.inc()
        own = self._own
        ours = f"any but {SYSTEM_POOL}" if own is None else ", ".join(sorted(own)) or "none"
        shown = excerpt(pool, _MOST_CHARS)
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
        return PoolRefusal(f"it is for pool {shown!r}, this worker's: {ours}")
