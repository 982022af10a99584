"""One port for the probes and metrics of all workers of a supervisor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.observability.probe_server import Page
from noetl_worker.observability.sums import summed
from noetl_worker.worker.supervisor.supervisor import Supervisor, WorkerProcess

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S: Final = 2.0


@dataclass
class _Said:
    """What a worker said last, and what its lives before had counted: where a counter falls, Prometheus takes it for
    one that began anew, and counts all of it again."""

    life: asyncio.subprocess.Process | None = None
    text: str = ""
    before: str = ""

    def take(self, life: asyncio.subprocess.Process | None, text: str) -> None:
        if life is not self.life:
            self.before = summed([], [self.before, self.text])
        self.life, self.text = life, text


def pages_of_all(supervisor: Supervisor) -> dict[str, Page]:
    said = {worker.number: _Said() for worker in supervisor.workers}
    scrapes = asyncio.Lock()
    """One at a time: what a worker says to the next one is no less."""

    async def livez() -> tuple[int, Mapping[str, Any]]:
        """A worker that died is being started again: that is no reason to start all of them anew. Nor is one that
        stops: it serves no probes in the end."""
        answers = await _asked(supervisor, "/livez")
        failing = {
            str(worker.number): _text_of(answer) if answer is not None else "it runs, and no longer answers"
            for worker, answer in answers
            if (not _is_ok(answer) if answer is not None else _hangs(worker) and not supervisor.is_stopping)
        }
        body = {"status": "failing" if failing else "ok", "processes": failing}
        return 503 if failing else 200, body

    async def readyz() -> tuple[int, Mapping[str, Any]]:
        answers = await _asked(supervisor, "/readyz")
        waiting = {str(worker.number): _text_of(answer) for worker, answer in answers if not _is_ok(answer)}
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
                now.append(_of_silent(max(time.monotonic() - worker.answered_at for worker in silent)))
            return 200, summed([*now, _own(supervisor)], past).encode()

    async def inflight() -> tuple[int, Mapping[str, Any]]:
        answers = await _asked(supervisor, "/debug/inflight")
        return 200, {"processes": [answer.json() for _, answer in answers if answer and _is_ok(answer)]}

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics, "/debug/inflight": inflight}


async def _asked(supervisor: Supervisor, path: str) -> list[tuple[WorkerProcess, httpx.Response | None]]:
    """Each worker's answer; None: it does not run, or does not answer."""
    import httpx

    # without TLS, whose store of certificates takes 25 ms to load for each client
    async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, verify=False) as client:

        async def ask(worker: WorkerProcess) -> httpx.Response | None:
            if (asked := worker.running) is None:
                return None
            try:
                answer = await client.get(f"http://127.0.0.1:{worker.port}{path}")
            except httpx.HTTPError:
                return None
            worker.answered_at = time.monotonic()
            worker.answered = worker.running or asked  # which it has become meanwhile has the same port
            return answer

        answers = await asyncio.gather(*map(ask, supervisor.workers))
    return list(zip(supervisor.workers, answers, strict=True))


def _hangs(worker: WorkerProcess) -> bool:
    """Of one that has not answered now: whether it did in this life."""
    return worker.running is not None and worker.running is worker.answered


def _is_ok(answer: httpx.Response | None) -> bool:
    return answer is not None and answer.status_code == 200


def _text_of(answer: httpx.Response | None) -> str:
    return str(answer.json().get("reason")) if answer is not None else "it does not run, or does not answer"


def _of_silent(seconds: float) -> str:
    """What a worker would say of itself that runs and has not answered for so long."""
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
