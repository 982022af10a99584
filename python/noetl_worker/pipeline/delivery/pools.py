"""The worker pools whose commands this worker runs. A notification for another pool is not claimed.

A notification for another pool arrives when the durable's filters differ from the settings
(protocol/notification.md#durable), or when two pools share a durable. The pool `system` is different: a filter for all
pools also matches its commands, but only workers of that pool can run them. The Rust plane 3.54.0 lets any worker claim
the system command `__orchestrate__`. If that command fails, the plane reports the running execution as FAILED (both
were seen).
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from noetl_worker.observability import metrics
from noetl_worker.observability.step_log import Warned
from noetl_worker.settings.nats import SYSTEM_POOL, read_pool
from noetl_worker.settings.settings import Settings
from noetl_worker.text.secrets.redaction import excerpt

_MOST_CHARS = 60
_USUAL = "shared"
"""The Rust plane's pool for a command that names no pool (protocol/pools.md#subjects)."""
log = structlog.get_logger("noetl_worker")


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    """Reason why a notification is not for this worker."""

    cause: str
    is_passed_over: bool = False
    """True for a command of the pool `system` that the worker's own filter matched. Another durable serves that pool,
    so this worker acknowledges the message without running the command."""


class Pools:
    """The worker pools that this worker serves: the pools that its NATS subject filters name, or
    NOETL_WORKER_POOL_SEGMENTS, or every pool except `system`."""

    def __init__(self, settings: Settings) -> None:
        self._own = settings.pools
        self.needs_no_check = frozenset({settings.nats_subject, *((_USUAL,) if self._own is None else self._own)})
        """Names of pools that this worker serves, and the subject that names no pool. A notification with such a pool
        or subject is for this worker, so the caller need not call `refusal`."""
        self._settings = settings
        self._warned = Warned()

    def refusal(self, named: str | None, subject: str) -> PoolRefusal | None:
        """Return why a notification is not for this worker. Return None if this worker may run it. Log the reason once
        per pool.

        Args:
            named: the notification's `execution_pool`, which only the Rust plane sends.
            subject: the message's subject, with the pool before the execution's id. A bare subject names no pool, and
                any worker may run its command.
        """
        pool, own = named or read_pool(subject, self._settings.nats_subject), self._own
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
                advice="check that the pool `system` has workers: only they run this command. By default a Rust plane "
                "advances every execution by commands for this pool. Either start a worker in the pool that can run "
                "wasm, or set NOETL_ORCHESTRATE_PLUGIN_DRIVE=false on the plane. To run playbooks whose catalog path "
                "begins with `system/` on this worker, name the pool `system` in NOETL_WORKER_POOL_SEGMENTS",
            )
        cause = f"the command is for pool {SYSTEM_POOL!r}, which the settings do not name"
        return PoolRefusal(cause, is_passed_over=True)

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
                advice="to run commands of this pool here, name it in NATS_FILTER_SUBJECT or "
                "NOETL_WORKER_POOL_SEGMENTS; else restore the durable's filters with `noetl-worker nats ensure "
                "--apply`, and give each pool its own durable (NATS_CONSUMER)",
            )
        return PoolRefusal(f"the command is for pool {shown!r}, and this worker serves: {ours}")
