"""The settings of the development control plane. The default times are the real planes' times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from noetl_worker.models.wire import Dialect


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """Settings of one DevControlPlane (protocol/claim.md#leases). Names in `_s` are seconds."""

    dialect: Dialect = Dialect.PYTHON
    port: int = 0
    """Port to serve on; 0: a free port, which stays the same after `stop()` and `start()`."""
    public_url: str | None = None
    """The `server_url` that notifications name; None: the plane's own URL.

    A worker sends requests only to servers that its settings name. So a test with a proxy sets the proxy's URL here and
    in the worker's NOETL_SERVER_URL. The plane refuses requests to any host but this URL's host and loopback."""
    token: str = field(default="", repr=False)
    """Bearer token that every route requires, except the health routes and /demo/. Empty: no token is required."""

    claim_lease_s: float = 120.0
    claims_cache_ttl_s: float = 30.0
    heartbeat_stale_s: float = 30.0
    retry_after_s: int = 2

    reaper_interval_s: float = 60.0
    pending_retry_s: float = 60.0
    worker_stale_s: float = 60.0
    publish_recovery_delay_s: float = 30.0

    result_prefix: Literal["/api", "/api/api"] = "/api"
    """Prefix of the routes /result: /api/api in release v4.0.0 of the Python plane, /api in later releases
    (protocol/results.md#store)."""
    stream: str = "NOETL_COMMANDS"
    subject: str = "noetl.commands"
    stream_storage: Literal["memory", "file"] = "memory"
    extra_kinds: tuple[str, ...] = ()
    """Tool kinds of plug-ins, accepted in addition to the real plane's."""
