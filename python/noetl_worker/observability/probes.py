"""GET /healthz, /livez, /readyz, /metrics, /debug/inflight, served from the keepalive thread: a blocked loop is
reported, not mute.

Liveness is progress, not an open port: a worker once hung for 22 hours behind a green TCP probe
(production-lessons B2). Readiness is false while draining or disconnected.
"""

from __future__ import annotations

import hmac
import ipaddress
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.observability import metrics

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

__all__ = ["Health", "is_let_in", "probe_app"]

BLOCKED_AFTER_S: Final = 5.0
"""A loop that has not turned for this long is reported as blocked."""


@dataclass
class Health:
    """What the main loop says about itself; written there, read in the keepalive thread."""

    ready: bool = False
    reason: str = "starting"
    pulse: float = field(default_factory=lambda: time.monotonic())
    """When the main loop last turned (monotonic seconds)."""
    puller_progress: Callable[[], float] | None = None
    in_flight: Callable[[], Mapping[str, Any]] | None = None
    """What the worker is doing; None before it pulls."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def set_ready(self, ready: bool, reason: str) -> None:
        with self.lock:
            self.ready, self.reason = ready, reason
        metrics.READY.set(1 if ready else 0)

    def loop_lag_s(self) -> float:
        return max(0.0, time.monotonic() - self.pulse)

    def trouble(self) -> str | None:
        """Why the process is not alive in any useful sense; None when it is."""
        lag_s = self.loop_lag_s()
        if lag_s > BLOCKED_AFTER_S:
            return f"the event loop has been blocked for {lag_s:.1f} s"
        if self.puller_progress is not None and time.monotonic() - self.puller_progress() > 60:
            return "the pull loop has not turned for 60 s"
        return None


def probe_app(health: Health, *, debug_token: str = "") -> Starlette:
    """The ASGI app with the five routes; /debug is for this machine, and for who has the token.

    Its library is loaded for who serves it: `Health` is the worker's, too.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def livez(_: Request) -> Response:
        trouble = health.trouble()
        body = {"status": "ok" if trouble is None else "failing", "reason": trouble, "loop_lag_s": health.loop_lag_s()}
        return JSONResponse(body, status_code=200 if trouble is None else 503)

    async def readyz(_: Request) -> Response:
        trouble = health.trouble()
        ready = health.ready and trouble is None
        return JSONResponse({"ready": ready, "reason": trouble or health.reason}, status_code=200 if ready else 503)

    async def metrics_text(_: Request) -> Response:
        metrics.LOOP_LAG.set(health.loop_lag_s())
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def inflight(request: Request) -> Response:
        if not is_let_in(request, debug_token):
            advice = "from this machine only, or with NOETL_WORKER_DEBUG_TOKEN as a bearer token"
            return JSONResponse({"error": advice}, status_code=403)
        state = {"ready": health.ready, "reason": health.trouble() or health.reason, "loop_lag_s": health.loop_lag_s()}
        return JSONResponse({**state, **(health.in_flight() if health.in_flight is not None else {})})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
            Route("/debug/inflight", inflight),
        ]
    )


def is_let_in(request: Request, token: str) -> bool:
    """By the peer's address, never by a header that says where a request came from."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and hmac.compare_digest(given.encode(), token.encode()):
        return True
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
