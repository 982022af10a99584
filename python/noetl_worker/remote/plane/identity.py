"""A worker's id in its claims. The two planes require opposite things of this id.

Python plane: the same id is refused for 1,800 s after `command.started`, so an id lives as long as its process.
Rust plane: a claim is for ever and the same id is always accepted, so the id must survive the process.
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
    """A worker's id by dialect: `unique` for the Python plane, WORKER_ID as it is for the Rust plane."""

    def __init__(self, settings: Settings) -> None:
        stem = settings.worker_id or socket.gethostname() or "worker"
        self.unique: Final = f"{stem}-{os.getpid()}-{secrets.token_hex(3)}"
        self._heartbeat_interval_s = settings.heartbeat_interval_s
        self.stable: Final = settings.worker_id or None

    def name_for(self, dialect: Dialect) -> str:
        """Return the worker_id of claims, and `name` of the registry row, on a plane of this dialect."""
        return self.stable or self.unique if RULES[dialect].accepts_same_worker else self.unique

    def can_return(self, dialect: Dialect) -> bool:
        """Return whether another process can take over the claims of this process."""
        return self.stable is not None or not RULES[dialect].accepts_same_worker

    def warn_if_unstable(self, dialect: Dialect) -> None:
        """Warn if the plane would give away a live worker's commands, or would never give away a killed worker's
        commands."""
        stale_after_s = RULES[dialect].stale_after_s
        if self._heartbeat_interval_s >= stale_after_s:
            log.warning(
                "heartbeat_too_slow",
                interval_s=self._heartbeat_interval_s,
                advice="set WORKER_HEARTBEAT_INTERVAL to 15: the control plane gives away the commands of a worker "
                f"without a heartbeat for {stale_after_s:g} s",
            )
        if not self.can_return(dialect):
            log.warning(
                "worker_id_unset",
                advice="set WORKER_ID (a StatefulSet's pod name): a claim on the Rust control plane is for ever, and "
                "without WORKER_ID no worker ever resumes a command of a killed worker",
            )
