"""Entry of a worker in a plane's registry: register, send heartbeats, register again if the plane lost the entry,
deregister.

The entry's `name` is the worker's id in its claims. Without a fresh heartbeat in its entry, a worker loses its commands
when their leases end (protocol/claim.md#leases).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from noetl_worker import __version__
from noetl_worker.engine import chosen as engine
from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.wire import JsonValue
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.settings.settings import Settings

T = TypeVar("T")
DEREGISTER_ADVICE: Final = "do nothing: without heartbeats, the plane takes this worker for gone"
log = structlog.get_logger("noetl_worker.registration")
REGISTER_AGAIN_S: Final = 1.0
"""Seconds between tries to register, until the plane has accepted the worker's entry."""


class Registration:
    """Entry of a worker in a plane's registry. The keepalive thread uses this object, with its own transport."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        worker_id: str,
        watch: HeartbeatWatch,
        *,
        on_heartbeat: Callable[[float, float], None] = lambda *_: None,
    ) -> None:
        """Prepare the worker's entry, without sending it.

        Args:
            on_heartbeat: called for each accepted heartbeat. The first argument is the monotonic time at which the
                heartbeat was sent. The second is the number of seconds after which the plane gives up a silent worker.
                The constructor makes the first call, with the current time.
        """
        self._plane, self._watch, self._on_heartbeat = plane, watch, on_heartbeat
        self._trouble = Outage()
        self.is_registered = False
        """True once the plane has accepted the worker's entry."""
        on_heartbeat(time.monotonic(), plane.rules.stale_after_s)
        self._worker_id = worker_id
        self._body: dict[str, JsonValue] = {
            "name": worker_id,
            # `component_type` only: with `kind` beside it the Rust plane answers 422
            # (protocol/registry.md#registration)
            "component_type": "worker_pool",
            "runtime": "python",
            "status": "ready",
            "capacity": settings.max_concurrent,
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            # No NATS URL here: the published Python worker leaks NATS's password that way
            # (protocol/registry.md#registration).
            "labels": {
                "pool_name": settings.pool_name,
                "nats_consumer": settings.nats_consumer,
                "version": __version__,
                "engine": engine.ENGINE,
                "isolation": settings.isolation,
            },
        }

    async def run(self, interval_s: float) -> None:
        """Register, then send heartbeats until cancelled."""
        soon_s = min(REGISTER_AGAIN_S, interval_s)
        while True:
            began = time.monotonic()
            is_taken = await (self.heartbeat() if self.is_registered else self.register())
            if is_taken:
                wait_s = interval_s
            elif self.is_registered:  # minus the time that the heartbeat hung
                wait_s = max(soon_s, interval_s / 2 - (time.monotonic() - began))
            else:
                wait_s = REGISTER_AGAIN_S
            await asyncio.sleep(wait_s)

    async def register(self) -> bool:
        """Register, and return whether the plane accepted the entry. If not, log the failure; `run` tries again."""
        if await self._answered(self._plane.register(self._body)) is None:
            return False
        self.is_registered = True
        log.info("registered", worker_id=self._worker_id, server_url=self._plane.url)
        return True

    async def heartbeat(self) -> bool:
        """Send a heartbeat. Register again if the plane does not know the worker, for example after the plane was
        restored. Return whether the plane accepted the heartbeat or the registration."""
        if self._plane.rules.heartbeat_registers:
            return await self._answered(self._plane.register(self._body)) is not None
        is_known = await self._answered(self._plane.heartbeat(self._worker_id))
        if is_known is False:
            log.warning("heartbeat_unknown", worker_id=self._worker_id, advice="do nothing: the worker registers again")
            return await self.register()
        return is_known is True

    async def _answered(self, asked: Awaitable[T]) -> T | None:
        """Await a registration or heartbeat, and return the plane's answer. Record a failure, and return None, if the
        plane did not answer or refused."""
        sent_at = time.monotonic()
        try:
            answer = await asked
        except ControlPlaneError as error:
            metrics.HEARTBEAT_FAILURES.inc()
            if not self._watch.failed(error) and (line := self._trouble.note_failure(str(error))) is not None:
                log.warning(
                    "heartbeat_failed",
                    worker_id=self._worker_id,
                    server_url=self._plane.url,
                    **line,
                    advice="for 401 or 403 check NOETL_INTERNAL_API_TOKEN; else do nothing: the worker tries again",
                )
            return None
        self._on_heartbeat(sent_at, self._plane.rules.stale_after_s)
        self._trouble.note_success()
        self._watch.answered()
        return answer

    async def deregister(self) -> None:
        """Remove the worker's entry from the registry. If the plane does not answer or refuses, only log the failure:
        without heartbeats the entry becomes stale."""
        try:
            await self._plane.deregister(self._worker_id)
        except ControlPlaneError as error:
            log.warning("deregister_failed", worker_id=self._worker_id, error=str(error), advice=DEREGISTER_ADVICE)
        else:
            log.info("deregistered", worker_id=self._worker_id)
