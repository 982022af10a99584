"""Whether the configured plane answers, and its commands reach NATS: it may be replaced by a later one."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from noetl_worker.errors import ControlPlaneError, JetStreamError, PlaneWithoutNats, ServerRefused, TransportError
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probes import Health
from noetl_worker.remote.plane.answers import is_server_error
from noetl_worker.remote.plane.client import ControlPlaneClient

MISSED_BEATS: Final = 2
"""Heartbeats in a row without an answer: one alone is a plane that is rolled out."""

ASKED_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 5.0
"""A plane that hangs must not hold up what else the worker looks at."""
_DOWN_ADVICE: Final = (
    "nothing is lost: commands wait in the stream, outcomes in the outbox; look at the control plane, and with "
    "`noetl-worker doctor` at the way to it"
)
_MEMORY_ADVICE: Final = (
    "outcomes are in memory only and are lost with this worker: make room in NOETL_WORKER_OUTBOX_DIR before it ends"
)
log = structlog.get_logger("noetl_worker")


class PlaneWatch:
    """Asks GET /api/health; a plane that does not answer, or answers otherwise, changes nothing here.

    Args:
        has_bridge: whether the stream of commands names a bridge. It is asked for a plane without NATS alone.
    """

    def __init__(self, client: ControlPlaneClient, has_bridge: Callable[[], Awaitable[bool]]) -> None:
        self._client, self._has_bridge = client, has_bridge
        self._asked_at = -math.inf
        self.trouble: str | None = None
        """Why no command will come; None: nothing is known against it."""

    async def require_nats(self) -> None:
        """Ask at the start. Raises PlaneWithoutNats; JetStreamError where the stream cannot be looked at."""
        try:
            await self._ask()
        except PlaneWithoutNats:
            raise
        except ControlPlaneError as error:  # it is waited for, or its dialect is set because it does not report it
            log.debug("plane_health_unknown", error=str(error))

    async def look(self) -> None:
        """Ask again when it is time, and say once what has changed."""
        if time.monotonic() - self._asked_at < ASKED_EVERY_S:
            return
        before = self.trouble
        try:
            await self._ask()
        except PlaneWithoutNats as error:
            self.trouble = str(error)
            if before is None:
                log.error("plane_left_nats", problem=self.trouble)
        except JetStreamError as error:
            log.debug("plane_bridge_unknown", error=str(error))
        except ControlPlaneError as error:
            if not _is_there(error):  # it may have been restarted, and have lost batches
                self._client.servers.at(self._client.servers.configured).gate.outages += 1
            log.debug("plane_health_unknown", error=str(error))
        else:
            self.trouble = None

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        url = self._client.servers.configured
        health = await self._client.health(url, timeout_s=_TIMEOUT_S)
        if health.has_no_nats and not await self._has_bridge():
            raise health.without_bridge(url)


class HeartbeatWatch:
    """Whether the plane answers, by the heartbeats that are sent anyway. Used from the keepalive thread."""

    def __init__(self, url: str, health: Health) -> None:
        self._url, self._health = url, health
        self._outage = Outage(after=MISSED_BEATS)

    def answered(self) -> None:
        line = self._outage.ends()
        if line is None:
            return
        metrics.PLANE_DOWN.set(0)
        self._health.plane_down = None
        log.info("plane_up", server_url=self._url, **line)

    def failed(self, error: ControlPlaneError) -> bool:
        """Whether that is a plane that is down; False: it is there and refuses, or one heartbeat is missing."""
        if _is_there(error):
            self.answered()
            return False
        line = self._outage.lasts(str(error))
        if line is not None:
            metrics.PLANE_DOWN.set(1)
            self._health.plane_down = f"the control plane {self._url} does not answer since {line['since']}"
            held_up = _held_up()
            advice = _MEMORY_ADVICE if held_up["outcomes_in_memory"] else _DOWN_ADVICE
            log.error("plane_down", server_url=self._url, **line, **held_up, advice=advice)
        return self._outage.is_on


def _is_there(error: ControlPlaneError) -> bool:
    """Whether the plane answers, and refuses."""
    is_down = isinstance(error, ServerRefused) and is_server_error(error.status)
    return not (is_down or isinstance(error, TransportError))


def _held_up() -> dict[str, int]:
    waiting = max((series.value for series in metrics.PENDING.series.copy().values()), default=0)
    return {
        "commands_in_flight": int(metrics.CONCURRENT.own.value),
        "commands_waiting": int(waiting),
        "outcomes_on_disk": int(metrics.OUTBOX_ROWS.own.value),
        "outcomes_in_memory": int(metrics.OUTBOX_UNWRITTEN.own.value),
    }
