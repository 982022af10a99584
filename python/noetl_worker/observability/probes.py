"""The pages /healthz, /livez, /readyz, /metrics and /debug/inflight.

The keepalive thread serves them, so that they answer while the main loop is blocked. /livez fails if the worker makes
no progress, even while its port is open: a worker once hung for 22 hours behind a green TCP probe. /readyz fails while
the worker drains or is disconnected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.observability import metrics
from noetl_worker.observability.probe_server import Page
from noetl_worker.process.threads import POOLS, WORK

BLOCKED_AFTER_S: Final = 5.0
"""Seconds without an iteration of the main loop after which the loop is reported as blocked."""
STANDS_AFTER_S: Final = 10.0
"""Seconds that a call waits for a free thread before its thread pool is listed on /livez. Only the pool for the
worker's own work makes /livez fail. The other pools do not, because they wait for a DNS resolver, which no restart
repairs."""


@dataclass
class Health:
    """The state of the worker that its probes report. The main loop writes the state, and the keepalive thread reads
    it."""

    ready: bool = False
    reason: str = "starting"
    pulse: float = field(default_factory=lambda: time.monotonic())
    """Monotonic time by which the main loop should run again. Any delay after this time is the loop's lag."""
    puller_progress: Callable[[], float] | None = None
    """Callable that returns the monotonic time of the pull loop's last round; None before the worker pulls."""
    in_flight: Callable[[], Mapping[str, Any]] | None = None
    """Callable that returns the worker's state and commands for /debug/inflight; None before the worker pulls."""
    plane_down: str | None = None
    """Fault of the control plane that heartbeats have found, or None. The keepalive thread writes it."""
    stands_after_s: float = STANDS_AFTER_S
    """Seconds that a call may wait for a free thread before /livez lists its thread pool as waiting. If the pool for
    the worker's own work ends no call for this time, /livez fails (see `STANDS_AFTER_S`)."""

    def set_ready(self, ready: bool, reason: str) -> None:
        self.ready, self.reason = ready, reason

    def readiness(self) -> tuple[bool, str]:
        """Return whether the worker is ready, and the reason as text. A fault of the plane makes the worker not ready.
        If the worker itself is not ready, its own reason is returned, not the fault."""
        if not self.ready or self.plane_down is None:
            return self.ready, self.reason
        return False, self.plane_down

    def loop_lag_s(self) -> float:
        return max(0.0, time.monotonic() - self.pulse)

    def trouble(self) -> str | None:
        """Return the reason why the process makes no progress, such as a blocked event loop. Return None if the process
        makes progress."""
        lag_s = self.loop_lag_s()
        if lag_s > BLOCKED_AFTER_S:
            return f"the event loop has been blocked for {lag_s:.1f} s"
        if self.puller_progress is not None and time.monotonic() - self.puller_progress() > 60:
            return "the pull loop has made no progress for 60 s"
        work = POOLS.get(WORK)
        if work is not None and (stuck_s := work.stuck_s()) > self.stands_after_s:
            return f"no thread has ended its work for {stuck_s:.1f} s, and further work waits"
        return None


def make_pages(health: Health) -> dict[str, Page]:
    async def livez() -> tuple[int, Mapping[str, Any]]:
        trouble = health.trouble()
        waiting = {name: round(s, 1) for name, pool in POOLS.items() if (s := pool.waiting_s()) > health.stands_after_s}
        body = {
            "status": "ok" if trouble is None else "failing",
            "reason": trouble,
            "loop_lag_s": health.loop_lag_s(),
            "pools_waiting_s": waiting,
        }
        return 200 if trouble is None else 503, body

    def readiness() -> tuple[bool, str]:
        (ready, reason), trouble = health.readiness(), health.trouble()
        return ready and trouble is None, trouble or reason

    async def readyz() -> tuple[int, Mapping[str, Any]]:
        ready, reason = readiness()
        return 200 if ready else 503, {"ready": ready, "reason": reason}

    async def metrics_text() -> tuple[int, bytes]:
        metrics.READY.set(1 if readiness()[0] else 0)
        metrics.LOOP_LAG.set(health.loop_lag_s())
        for name, pool in POOLS.items():
            metrics.POOL_WAITING.labels(name).set(pool.waiting_s())
        return 200, metrics.exposition()

    async def inflight() -> tuple[int, Mapping[str, Any]]:
        ready, reason = readiness()
        state = {"ready": ready, "reason": reason, "loop_lag_s": health.loop_lag_s()}
        return 200, {**state, **(health.in_flight() if health.in_flight is not None else {})}

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics_text, "/debug/inflight": inflight}
