"""The start of a worker: waits for NATS, JetStream and the control plane. The probes say which of them is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from noetl_worker.errors import ControlPlaneError, JetStreamError, ServerRefused, WorkerBroken
from noetl_worker.models import backoff
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probes import Health
from noetl_worker.remote.jetstream.connection import ATTEMPTS, RETRY_S, Connection, connect
from noetl_worker.remote.jetstream.consumer import Durable, ensure_durable
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.plane_watch import PlaneWatch
from noetl_worker.settings.settings import Settings

T = TypeVar("T")
_UNANSWERED_ADVICE: Final = "run `noetl-worker doctor`, which names missing permissions; JetStream is asked again"
_UNREACHABLE_ADVICE: Final = "check NOETL_SERVER_URL, and that the control plane is up: until then nothing is pulled"
log = structlog.get_logger("noetl_worker")


class Startup:
    """The waits before a worker pulls. With NOETL_WORKER_WAIT=false, each server is tried a few times only.

    A method returns None if a stop comes before its server answers.
    """

    def __init__(self, settings: Settings, health: Health, stopping: Stopping) -> None:
        self._settings, self._health, self._stopping = settings, health, stopping

    async def nats(self, name: str) -> Connection | None:
        """Return a connection to NATS, with `name` as the client's name.

        Raises:
            SettingsError: a setting names a file for the login or for TLS that cannot be used.
            NatsUnavailable: no server accepts the connection, and waiting is off.
        """
        attempts = None if self._settings.wait else ATTEMPTS
        connection = await self._stopping.unless_stopped(
            connect(self._settings, name, attempts=attempts, on_wait=self._wait_for)
        )
        if connection is not None:

            def measure() -> None:
                metrics.NATS_CONNECTED.set(connection.is_connected)

            measure()
            for happens in (connection.on_disconnected, connection.on_reconnected):
                happens.append(measure)
        return connection

    async def durable(self, connection: Connection) -> Durable | None:
        """Return the durable consumer that the settings name. Create the consumer if it is missing.

        Raises:
            JetStreamError: a worker cannot use the consumer.
            WorkerBroken: NATS has closed the connection for good.
        """

        async def ensure() -> Durable:
            if connection.client.is_closed:
                raise WorkerBroken(connection.why_closed())
            return await ensure_durable(connection.client, self._settings)

        def say(line: dict[str, object]) -> None:
            log.warning("jetstream_unanswered", advice=_UNANSWERED_ADVICE, **line)

        return await self._reached(ensure, say)

    async def plane(self, client: ControlPlaneClient, has_bridge: Callable[[], Awaitable[bool]]) -> Plane | None:
        """Wait until the configured plane answers, and return the plane.

        Args:
            client: sends the requests to the plane.
            has_bridge: returns whether a bridge program fills the command stream. It is called only for a plane
                without NATS.

        Raises:
            ControlPlaneError: the server is no control plane, or it sends no commands over NATS and has no bridge.
        """
        url = self._settings.server_url

        async def ask() -> Plane:
            plane = await client.plane(url)
            await PlaneWatch(client, has_bridge).require_nats()
            return plane

        def say(line: dict[str, object]) -> None:
            log.warning("control_plane_unreachable", server_url=url, advice=_UNREACHABLE_ADVICE, **line)

        return await self._reached(ask, say)

    async def _reached(
        self, ask: Callable[[], Coroutine[Any, Any, T]], say: Callable[[dict[str, object]], None]
    ) -> T | None:
        tries, outage = 0, Outage()
        while not self._stopping.is_draining:
            try:
                return await self._stopping.unless_stopped(ask())
            except (ControlPlaneError, JetStreamError) as error:
                tries += 1
                may_pass = error.is_retryable or isinstance(error, ServerRefused)
                if not may_pass or (tries >= ATTEMPTS and not self._settings.wait):
                    raise
                self._wait_for(str(error))
                if (line := outage.note_failure(str(error))) is not None:
                    say(line)
            await self._stopping.sleep(backoff.delay_s(tries, RETRY_S, 5.0, jitter=0.0), until=StopLevel.DRAIN)
        return None

    def _wait_for(self, reason: str) -> None:
        self._health.set_ready(False, f"it waits: {reason}")
