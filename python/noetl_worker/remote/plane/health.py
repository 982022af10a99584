"""Health of a control plane from GET /api/health: its dialect, and whether its commands come over NATS.

The Rust planes from 3.60.2 on answer `nats: "removed"`: these planes hand out commands over their own TCP feed, not
over NATS. A worker for such a plane needs a bridge, a process that brings the commands into NATS (protocol/feed.md).
Without a bridge the worker would wait for ever and look healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from noetl_worker.errors import PlaneWithoutNats
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.remote.plane.dialects import RULES

SERVED: Final = "Rust control planes up to 3.60.1, every Python one, and later Rust ones behind a bridge"
"""Text for error messages: the control planes from which a worker can get commands."""
START_BRIDGE: Final = "noetl-worker bridge --publish HOST:PORT"
"""Command line that starts a bridge. The bridge brings the commands of a plane without NATS to workers."""
_REMOVED: Final = "removed"


@dataclass(frozen=True, slots=True)
class PlaneHealth:
    dialect: Dialect
    version: str | None = None
    """Version of the plane. None for the Python plane, which does not report a version."""
    nats: str | None = None
    """State of NATS: connected, disconnected or removed. None for the Python plane, which does not report a state."""

    @property
    def has_no_nats(self) -> bool:
        """True if the plane sends no commands over NATS. A bridge process must then bring the commands into NATS for
        the workers."""
        return self.nats == _REMOVED

    def missing_bridge_error(self, url: str) -> PlaneWithoutNats:
        """Return the error to raise if this plane's commands reach no worker: they do not come over NATS, and no bridge
        process brings them into NATS."""
        return PlaneWithoutNats(
            f"{url} is a Rust control plane {self.version or 'of an unknown version'}, which no longer sends "
            f'commands over NATS (its /api/health says nats: "removed"), and the stream names no bridge: no command '
            f"would ever arrive here. Start `{START_BRIDGE}` on this NATS (docs/todays-server.md). Served are {SERVED}"
        )


def read_health(body: JsonValue) -> PlaneHealth | None:
    """Return the health that the body of GET /api/health describes, or None for the body of another server.

    A Rust plane's body has `version`, `database` and `nats`; a Python plane's is exactly {"status": "ok"}
    (protocol/registry.md#identity).
    """
    for rules in RULES.values():
        if rules.is_health(body):
            version, nats = body.get("version"), body.get("nats")
            return PlaneHealth(rules.dialect, *(str(text) if text is not None else None for text in (version, nats)))
    return None
