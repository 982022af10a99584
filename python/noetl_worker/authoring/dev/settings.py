"""The settings of the development control plane; every default is the real plane's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from noetl_worker.models.wire import Dialect


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """Settings of one DevControlPlane. Times in seconds, sizes in bytes (protocol/claim.md#leases)."""

    dialect: Dialect = Dialect.PYTHON
    port: int = 0
    """Port to serve on; 0: a free port, kept over stop() and start()."""
    public_url: str | None = None
    """The `server_url` in notifications; None: the plane's own URL.

    A test sets its proxy here and in the worker's NOETL_SERVER_URL: the worker asks no server that its settings do not
    name. Requests to hosts other than this one and loopback are not answered."""
    token: str = field(default="", repr=False)
    """Bearer token that every route requires, except the probes and /demo/. Empty: no token is required."""

    claim_lease_s: float = 120.0
    claims_cache_ttl_s: float = 30.0
    heartbeat_stale_s: float = 30.0
    retry_after_s: int = 2

    reaper_interval_s: float = 60.0
    pending_retry_s: float = 60.0
    worker_stale_s: float = 60.0
    publish_recovery_delay_s: float = 30.0

    result_prefix: Literal["/api", "/api/api"] = "/api"
    """Release v4.0.0 of the Python plane mounts /result under a doubled /api (protocol/results.md#store); later ones do
    not."""
    stream: str = "NOETL_COMMANDS"
    subject: str = "noetl.commands"
    stream_storage: Literal["memory", "file"] = "memory"
    extra_kinds: tuple[str, ...] = ()
    """Tool kinds to accept in addition to the real plane's (an integrator's own)."""
