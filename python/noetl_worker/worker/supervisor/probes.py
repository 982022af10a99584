"""The probes and metrics of a supervisor (the process of `run --processes N`). They combine those of all workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.observability.probe_server import Page
from noetl_worker.observability.sums import combine_metrics
from noetl_worker.worker.supervisor.supervisor import Supervisor, WorkerProcess

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S: Final = 2.0


@dataclass
class _LastMetrics:
    """The latest metrics of a worker, and the sums of the counters of its earlier processes.

    A counter must not fall when a worker is restarted: Prometheus would count its whole value again.
    """

    life: asyncio.subprocess.Process | None = None
    """The worker's process that gave the latest metrics."""
    text: str = ""
    """The worker's latest metrics, in the text format of Prometheus."""
    before: str = ""
    """Metrics in which each counter is the sum of the last counts of the worker's earlier processes."""

    def take(self, life: asyncio.subprocess.Process | None, text: str) -> None:
        if life is not self.life:
            self.before = combine_metrics([], [self.before, self.text])
        self.life, self.text = life, text


def make_common_pages(supervisor: Supervisor) -> dict[str, Page]:
    said = {worker.number: _LastMetrics() for worker in supervisor.workers}
    scrapes = asyncio.Lock()
    """Lock that makes scrapes come one after another, so that a later scrape never has lower counts."""

    async def livez() -> tuple[int, Mapping[str, Any]]:
        """Answer 503 if a running worker hangs or says that it is not alive. The system that asks then restarts the
        supervisor and all workers.

        A worker whose process has ended gives no 503: the supervisor restarts it alone. During a stop, a worker that
        does not answer gives no 503 either, because a worker closes its probes before it ends.
        """
        answers = await _asked(supervisor, "/livez")
        failing = {
            str(worker.number): _reason(answer) if answer is not None else "the worker runs, and no longer answers"
            for worker, answer in answers
            if (not _is_ok(answer) if answer is not None else _hangs(worker) and not supervisor.is_stopping)
        }
        body = {"status": "failing" if failing else "ok", "processes": failing}
        return 503 if failing else 200, body

    async def readyz() -> tuple[int, Mapping[str, Any]]:
        answers = await _asked(supervisor, "/readyz")
        waiting = {str(worker.number): _reason(answer) for worker, answer in answers if not _is_ok(answer)}
        return 503 if waiting else 200, {"ready": not waiting, "processes": waiting}

    async def metrics() -> tuple[int, bytes]:
        now, past = [], []
        async with scrapes:
            answers = await _asked(supervisor, "/metrics")
            for worker, answer in answers:
                last = said[worker.number]
                if answer is not None and _is_ok(answer):
                    last.take(worker.answered, answer.text)
                    now.append(answer.text)
                else:
                    past.append(last.text)
                past.append(last.before)
            silent = [worker for worker, answer in answers if answer is None and _hangs(worker)]
            if silent and not supervisor.is_stopping:
                now.append(_silent_metrics(max(time.monotonic() - worker.answered_at for worker in silent)))
            return 200, combine_metrics([*now, _own(supervisor)], past).encode()

    async def inflight() -> tuple[int, Mapping[str, Any]]:
        answers = await _asked(supervisor, "/debug/inflight")
        return 200, {"processes": [answer.json() for _, answer in answers if answer and _is_ok(answer)]}

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics, "/debug/inflight": inflight}


async def _asked(supervisor: Supervisor, path: str) -> list[tuple[WorkerProcess, httpx.Response | None]]:
    """Send a GET request for `path` to each worker. Return each worker with its answer, or with None if the worker does
    not run or answer."""
    import httpx

    # without TLS: its certificates would take 25 ms to load for each client
    async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, verify=False) as client:

        async def ask(worker: WorkerProcess) -> httpx.Response | None:
            if (asked := worker.running) is None:
                return None
            try:
                answer = await client.get(f"http://127.0.0.1:{worker.port}{path}")
            except httpx.HTTPError:
                return None
            worker.answered_at = time.monotonic()
            worker.answered = worker.running or asked  # a process that was started meanwhile has the same port
            return answer

        answers = await asyncio.gather(*map(ask, supervisor.workers))
    return list(zip(supervisor.workers, answers, strict=True))


def _hangs(worker: WorkerProcess) -> bool:
    """Return True if a worker that has not answered this probe hangs. The worker hangs if its present process has
    answered an earlier probe. Otherwise the process may still be starting."""
    return worker.running is not None and worker.running is worker.answered


def _is_ok(answer: httpx.Response | None) -> bool:
    return answer is not None and answer.status_code == 200


def _reason(answer: httpx.Response | None) -> str:
    return str(answer.json().get("reason")) if answer is not None else "the worker does not run, or does not answer"


def _silent_metrics(seconds: float) -> str:
    """Return the metrics for a worker whose process runs and has given no answer for some seconds."""
    return (
        "# TYPE noetl_worker_ready gauge\nnoetl_worker_ready 0.0\n"
        f"# TYPE noetl_worker_loop_lag_seconds gauge\nnoetl_worker_loop_lag_seconds {seconds}\n"
    )


def _own(supervisor: Supervisor) -> str:
    restarts = sum(max(0, worker.starts - 1) for worker in supervisor.workers)
    return (
        "# HELP noetl_worker_processes Workers of this supervisor that run\n"
        f"# TYPE noetl_worker_processes gauge\nnoetl_worker_processes {supervisor.running}\n"
        "# HELP noetl_worker_process_restarts_total Workers that died and were started again\n"
        f"# TYPE noetl_worker_process_restarts_total counter\nnoetl_worker_process_restarts_total {restarts}\n"
    )
