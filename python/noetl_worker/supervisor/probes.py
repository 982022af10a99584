"""One port for the probes and metrics of all workers of a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import structlog

from noetl_worker.errors import SettingsError
from noetl_worker.observability.probes import is_let_in
from noetl_worker.observability.sums import summed
from noetl_worker.settings.settings import Settings
from noetl_worker.supervisor.supervisor import Supervisor, WorkerProcess

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["serve"]

_TIMEOUT_S: Final = 2.0
log = structlog.get_logger("noetl_worker.supervisor")


async def serve(supervisor: Supervisor, settings: Settings) -> Callable[[], Any]:
    """Serve until the function that is returned is called.

    Raises:
        SettingsError: the address is taken.
    """
    import uvicorn

    from noetl_worker.observability.probe_connections import MAX_CONNECTIONS, ProbeConnection

    host, _, port = settings.metrics_bind.rpartition(":")
    try:
        listening = socket.create_server((host, int(port)))
    except OSError as error:
        raise SettingsError(
            "WORKER_METRICS_BIND", settings.metrics_bind, f"a free address ({error}); empty switches it off"
        ) from error
    log.info("probes_listening", host=host, port=listening.getsockname()[1])
    app = _app(supervisor, settings.debug_token.reveal())
    config = uvicorn.Config(
        app, http=ProbeConnection, backlog=MAX_CONNECTIONS, log_level="error", access_log=False, lifespan="off"
    )

    class ProbeServer(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """It takes none: it would stop answering at the first one, and raise it again, which is the second one."""
            yield

    server = ProbeServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))

    async def stop() -> None:
        server.should_exit = True
        await asyncio.wait([serving], timeout=2)

    return stop


def _app(supervisor: Supervisor, debug_token: str) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def livez(_: Request) -> Response:
        """A worker that died is being started again: that is no reason to start all of them anew."""
        answers = await _asked(supervisor, "/livez")
        failing = {
            str(worker.number): _text_of(answer)
            for worker, answer in answers
            if answer is not None and not _is_ok(answer)
        }
        body = {"status": "failing" if failing else "ok", "processes": failing}
        return JSONResponse(body, status_code=503 if failing else 200)

    async def readyz(_: Request) -> Response:
        answers = await _asked(supervisor, "/readyz")
        waiting = {str(worker.number): _text_of(answer) for worker, answer in answers if not _is_ok(answer)}
        body = {"ready": not waiting, "processes": waiting}
        return JSONResponse(body, status_code=503 if waiting else 200)

    async def metrics(_: Request) -> Response:
        answers = [answer.text for _, answer in await _asked(supervisor, "/metrics") if _is_ok(answer) and answer]
        return PlainTextResponse(summed([*answers, _own(supervisor)]))

    async def inflight(request: Request) -> Response:
        if not is_let_in(request, debug_token):
            advice = "from this machine only, or with NOETL_WORKER_DEBUG_TOKEN as a bearer token"
            return JSONResponse({"error": advice}, status_code=403)
        answers = await _asked(supervisor, "/debug/inflight")
        return JSONResponse({"processes": [answer.json() for _, answer in answers if answer and _is_ok(answer)]})

    routes = {
        "/healthz": healthz,
        "/livez": livez,
        "/readyz": readyz,
        "/metrics": metrics,
        "/debug/inflight": inflight,
    }
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes.items()])


async def _asked(supervisor: Supervisor, path: str) -> list[tuple[WorkerProcess, httpx.Response | None]]:
    """Each worker's answer; None: it does not run, or does not answer."""
    import httpx

    # without TLS, whose store of certificates takes 25 ms to load for each client
    async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, verify=False) as client:

        async def ask(worker: WorkerProcess) -> httpx.Response | None:
            if worker.running is None:
                return None
            try:
                return await client.get(f"http://127.0.0.1:{worker.port}{path}")
            except httpx.HTTPError:
                return None

        answers = await asyncio.gather(*map(ask, supervisor.workers))
    return list(zip(supervisor.workers, answers, strict=True))


def _is_ok(answer: httpx.Response | None) -> bool:
    return answer is not None and answer.status_code == 200


def _text_of(answer: httpx.Response | None) -> str:
    return str(answer.json().get("reason")) if answer is not None else "it does not run, or does not answer"


def _own(supervisor: Supervisor) -> str:
    running = sum(worker.running is not None for worker in supervisor.workers)
    restarts = sum(max(0, worker.starts - 1) for worker in supervisor.workers)
    return (
        "# HELP noetl_worker_processes Workers of this supervisor that run\n"
        f"# TYPE noetl_worker_processes gauge\nnoetl_worker_processes {running}\n"
        "# HELP noetl_worker_process_restarts_total Workers that died and were started again\n"
        f"# TYPE noetl_worker_process_restarts_total counter\nnoetl_worker_process_restarts_total {restarts}\n"
    )
