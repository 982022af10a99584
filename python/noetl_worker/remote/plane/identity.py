"""Id of a worker in its claims. The two planes require opposite ids: a new id for each process, or the same id for
ever.

Python plane: for 1,800 s after `command.started` the plane refuses a claim with the same id. So each process has a new
id.

Rust plane: a claim never expires, and a claim with the same id is always accepted. So the id must stay the same after a
restart.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

import structlog

from noetl_worker.models.wire import Dialect
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.settings.settings import Settings

log = structlog.get_logger("noetl_worker.identity")


class Identity:
    """Ids of a worker, one for each dialect: `unique` for the Python plane, WORKER_ID unchanged for the Rust plane."""

    def __init__(self, settings: Settings) -> None:
        stem = settings.worker_id or socket.gethostname() or "worker"
        self.unique: Final = f"{stem}-{os.getpid()}-{secrets.token_hex(3)}"
        self._heartbeat_interval_s = settings.heartbeat_interval_s
        self.stable: Final = settings.worker_id or None

    def name_for(self, dialect: Dialect) -> str:
        """Return the worker's id for a plane of this dialect. The worker sends the id as `worker_id` in claims, and as
        `name` to the plane's registry."""
        return self.stable or self.unique if RULES[dialect].accepts_same_worker else self.unique

    def can_claim_again(self, dialect: Dialect) -> bool:
        """Return whether another process can take over the claims of this process after its end."""
        return self.stable is not None or not RULES[dialect].accepts_same_worker

    def warn_if_unstable(self, dialect: Dialect) -> None:
        """Warn about two mistakes in the settings.

        With heartbeats that are too slow, the plane gives a live worker's commands to other workers. Without WORKER_ID,
        the Rust plane never gives a killed worker's commands to another worker.
        """
        stale_after_s = RULES[dialect].stale_after_s
        if self._heartbeat_interval_s >= stale_after_s:
            log.warning(
                "heartbeat_too_slow",
                interval_s=self._heartbeat_interval_s,
                advice="set WORKER_HEARTBEAT_INTERVAL to 15: the control plane gives away the commands of a worker "
                f"without a heartbeat for {stale_after_s:g} s",
            )
        if not self.can_claim_again(dialect):
            log.warning(
                "worker_id_unset",
                advice="set WORKER_ID (a StatefulSet's pod name): a claim on the Rust control plane is for ever, and "
                "without WORKER_ID no worker ever resumes a command of a killed worker",
            )
