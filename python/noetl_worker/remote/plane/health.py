"""What a control plane says of itself at GET /api/health: which of the two it is, and whether commands come over NATS.

The Rust planes from 3.60.2 on answer `nats: "removed"`: they hand out commands in another way, and a worker in front of
one would wait for ever and look well (protocol/pools.md#subjects).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from noetl_worker.errors import PlaneWithoutNats
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.remote.plane.dialects import RULES

SERVED: Final = "Rust control planes up to 3.60.1, and every Python one"
"""The planes that a worker can get commands from."""
_REMOVED: Final = "removed"


@dataclass(frozen=True, slots=True)
class PlaneHealth:
    """One answer."""

    dialect: Dialect
    version: str | None = None
    """The Python plane does not report its own."""
    nats: str | None = None
    """connected, disconnected or removed; the Python plane does not say."""

    def require_nats(self, url: str) -> None:
        """Raises PlaneWithoutNats for a plane that sends no command over NATS."""
        if self.nats == _REMOVED:
            raise PlaneWithoutNats(
                f"{url} is a Rust control plane {self.version or 'of an unknown version'}, which no longer sends "
                f'commands over NATS (its /api/health says nats: "removed"): no command would ever arrive here. '
                f"Served are {SERVED}. Set NOETL_SERVER_URL to one of them, or run that plane's own worker"
            )


def read_health(body: JsonValue) -> PlaneHealth | None:
    """`version`, `database`, `nats` = Rust; exactly {"status": "ok"} = Python (protocol/registry.md#identity); None:
    neither."""
    for rules in RULES.values():
        if rules.is_health(body):
            version, nats = body.get("version"), body.get("nats")
            return PlaneHealth(rules.dialect, *(str(text) if text is not None else None for text in (version, nats)))
    return None
