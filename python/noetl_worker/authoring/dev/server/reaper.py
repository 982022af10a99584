"""The task that publishes a command's notification again if no worker runs the command
(protocol/notification.md#copies).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from noetl_worker.authoring.dev.event_log import CommandRow, EventLog
from noetl_worker.authoring.dev.server.claims import HARD_TIMEOUT_S
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.authoring.dev.server.registry import RuntimeRegistry
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect

_MOST_AT_ONCE: Final = 100
"""Largest number of commands that are published again at one time."""


class Reaper:
    """Repeats the notifications of commands that no worker runs.

    On both planes, the notification of a command is repeated if its first publishing failed. On the Python plane there
    are two further reasons. No worker has claimed the command for a while, or the worker with the claim is lost.
    """

    def __init__(
        self,
        settings: PlaneSettings,
        log: EventLog,
        executions: Executions,
        registry: RuntimeRegistry,
        dispatcher: Dispatcher,
    ) -> None:
        self._settings, self._log, self._executions = settings, log, executions
        self._registry, self._dispatcher = registry, dispatcher
        self.republished = 0

    async def run(self) -> None:
        """Publish notifications again at the intervals of the settings, until cancelled: after failed publishing
        (`recover`) and, on the Python plane, for unclaimed or abandoned commands (`sweep`).
        """
        interval_s = min(self._settings.reaper_interval_s, self._settings.publish_recovery_delay_s)
        next_sweep = time.monotonic() + self._settings.reaper_interval_s
        while True:
            await asyncio.sleep(interval_s)
            self.recover()
            if time.monotonic() >= next_sweep and self._settings.dialect is Dialect.PYTHON:
                self.sweep()
                next_sweep = time.monotonic() + self._settings.reaper_interval_s
            await self._dispatcher.flush()

    def recover(self) -> None:
        """Publish again each notification whose first publishing failed."""
        limit = time.time() - self._settings.publish_recovery_delay_s
        lost = [row for row in self._log.commands_in("PENDING") if row.published_at is None and row.issued_at <= limit]
        self._republish(lost, as_text=False)

    def sweep(self) -> None:
        """Publish the notifications of unclaimed and abandoned commands again, as the Python plane's reaper does. The
        command_id is written as text.
        """
        now = time.time()
        waiting = [
            row
            for row in self._log.commands_in("PENDING")
            if now - (row.published_at or row.issued_at) >= self._settings.pending_retry_s
        ]
        held = [row for row in self._log.commands_in("CLAIMED", "RUNNING") if self._is_abandoned(row, now)]
        self._republish([*waiting, *held], as_text=True)

    def _is_abandoned(self, row: CommandRow, now: float) -> bool:
        if now - (row.claimed_at or now) >= HARD_TIMEOUT_S:
            return True
        return self._registry.why_lost(row.worker_id, self._settings.worker_stale_s) is not None

    def _republish(self, rows: list[CommandRow], *, as_text: bool) -> None:
        chosen = [row for row in rows if self._is_alive(row)][:_MOST_AT_ONCE]
        for row in chosen:
            self._dispatcher.requeue(row, as_text=as_text)
        self.republished += len(chosen)

    def _is_alive(self, row: CommandRow) -> bool:
        execution = self._executions.get(row.execution_id)
        return execution is not None and not execution.is_over
