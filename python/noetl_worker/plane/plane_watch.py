"""Whether the configured plane still sends commands over NATS: a plane may be replaced by a later one at any time."""

from __future__ import annotations

import math
import time
from typing import Final

import structlog

from noetl_worker.errors import ControlPlaneError, PlaneWithoutNats
from noetl_worker.plane.client import ControlPlaneClient

__all__ = ["PlaneWatch"]

ASKED_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 5.0
"""A plane that hangs must not hold up what else the worker looks at."""
log = structlog.get_logger("noetl_worker")


class PlaneWatch:
    """Asks GET /api/health; a plane that does not answer, or answers otherwise, changes nothing here."""

    def __init__(self, client: ControlPlaneClient) -> None:
        self._client = client
        self._asked_at = -math.inf
        self.trouble: str | None = None
        """Why no command will come; None: nothing is known against it."""

    async def require_nats(self) -> None:
        """Ask at the start. Raises PlaneWithoutNats."""
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
        except ControlPlaneError as error:
            log.debug("plane_health_unknown", error=str(error))
        else:
            self.trouble = None

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        url = self._client.servers.configured
        (await self._client.health(url, timeout_s=_TIMEOUT_S)).require_nats(url)
