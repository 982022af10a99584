"""Checks of the configured plane: whether the plane answers, and whether its commands reach NATS.

While the worker runs, the plane may be replaced by a version that sends no commands over NATS.
"""

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
"""Number of unanswered heartbeats in a row after which a plane counts as down. Replacing the plane by a new version can
already cost one heartbeat."""

ASKED_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 5.0
"""Seconds allowed for the answer to GET /api/health. The worker's other checks wait for this answer."""
_DOWN_ADVICE: Final = (
    "check the control plane, and the way to it with `noetl-worker doctor`. Nothing is lost: commands wait in the "
    "stream, outcomes in the outbox"
)
_BRIDGE_ADVICE: Final = "start `noetl-worker bridge` on this NATS (docs/todays-server.md)"
_MEMORY_ADVICE: Final = (
    "make room in NOETL_WORKER_OUTBOX_DIR before this worker ends: outcomes are in its memory alone, and would be lost"
)
log = structlog.get_logger("noetl_worker")


class PlaneWatch:
    """Repeated check whether the plane's commands reach NATS, by the plane's GET /api/health. If the plane does not
    answer, `trouble` keeps its value.

    Args:
        has_bridge: returns whether a bridge fills the command stream. It is called only for a plane without NATS.
    """

    def __init__(self, client: ControlPlaneClient, has_bridge: Callable[[], Awaitable[bool]]) -> None:
        self._client, self._has_bridge = client, has_bridge
        self._asked_at = -math.inf
        self.trouble: str | None = None
        """Reason why no command will come, or None if no such reason is known."""

    async def require_nats(self) -> None:
        """Check at the worker's start that the plane's commands reach NATS. A plane that does not answer passes the
        check.

        Raises:
            PlaneWithoutNats: the plane sends no commands over NATS, and no bridge brings them.
            JetStreamError: the stream of commands cannot be read.
        """
        try:
            await self._ask()
        except PlaneWithoutNats:
            raise
        except ControlPlaneError as error:  # the start waits for the plane, or a setting names its dialect
            log.debug("plane_health_unknown", error=str(error))

    async def check(self) -> None:
        """Check whether the plane's commands reach NATS, at most every ASKED_EVERY_S seconds. Log once when commands no
        longer reach NATS."""
        if time.monotonic() - self._asked_at < ASKED_EVERY_S:
            return
        before = self.trouble
        try:
            await self._ask()
        except PlaneWithoutNats as error:
            self.trouble = str(error)
            if before is None:
                log.error("plane_left_nats", problem=self.trouble, advice=_BRIDGE_ADVICE)
        except JetStreamError as error:
            log.debug("bridge_check_failed", error=str(error))
        except ControlPlaneError as error:
            if not _is_refusal(error):  # the plane may have been restarted, and have lost batches
                self._client.servers.server_at(self._client.servers.configured).gate.outages += 1
            log.debug("plane_health_unknown", error=str(error))
        else:
            self.trouble = None

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        url = self._client.servers.configured
        health = await self._client.health(url, timeout_s=_TIMEOUT_S)
        if health.has_no_nats and not await self._has_bridge():
            raise health.missing_bridge_error(url)


class HeartbeatWatch:
    """Record of whether the plane answers heartbeats, used by the keepalive thread."""

    def __init__(self, url: str, health: Health) -> None:
        self._url, self._health = url, health
        self._outage = Outage(after=MISSED_BEATS)

    def answered(self) -> None:
        line = self._outage.note_success()
        if line is None:
            return
        metrics.PLANE_DOWN.set(0)
        self._health.plane_down = None
        log.info("plane_up", server_url=self._url, **line)

    def failed(self, error: ControlPlaneError) -> bool:
        """Note a failed heartbeat, and return whether the plane is down.

        A plane that answers with a refusal is not down. A plane that missed only one heartbeat is not yet down.
        """
        if _is_refusal(error):
            self.answered()
            return False
        line = self._outage.note_failure(str(error))
        if line is not None:
            metrics.PLANE_DOWN.set(1)
            self._health.plane_down = f"the control plane {self._url} does not answer since {line['since']}"
            held_up = _held_up()
            advice = _MEMORY_ADVICE if held_up["outcomes_in_memory"] else _DOWN_ADVICE
            log.error("plane_down", server_url=self._url, **line, **held_up, advice=advice)
        return self._outage.is_on


def _is_refusal(error: ControlPlaneError) -> bool:
    """Return whether the error is a refusal by a working plane, not a missing answer or a server error."""
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
