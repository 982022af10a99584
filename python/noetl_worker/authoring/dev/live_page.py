"""A web server with the execution page (run_page/) of each run of a development plane. An open page shows new events.

Every user of this machine, and every web page in a browser here, can send requests to this server's port. So the server
answers a request only if three conditions are met. The path has the secret token, `Host` is the printed address, and
the request comes from no page of another server.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_worker.authoring.dev.database import moment
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.plane import DevControlPlane, DevServer
from noetl_worker.authoring.dev.server.own_requests import OwnAddresses
from noetl_worker.authoring.run_page.page import page_data, render_page
from noetl_worker.authoring.run_page.reading import read_run_from
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import load_settings
from noetl_worker.text import json_text

MOST_LISTED: Final = 30
_REST_S: Final = 0.3
"""Shortest pause, in seconds, before an open page reads its run again."""
_SHARE: Final = 4
"""Further pause before the next read, as a multiple of the last read's duration. Without this pause, an open page would
slow down a large run."""
_HEADERS: Final = (
    ("cache-control", "no-store"),
    ("content-security-policy", "frame-ancestors 'none'"),  # the page's own policy cannot contain this directive
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)
_STATES: Final = {"COMPLETED": "done", "FAILED": "failed", "CANCELLED": "failed"}


@asynccontextmanager
async def live_page(plane: DevControlPlane) -> AsyncIterator[str]:
    """Serve the execution pages of a plane until the `async with` block ends. Yield the address of the pages."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, token = f"127.0.0.1:{listener.getsockname()[1]}", secrets.token_urlsafe(24)
    variables = {
        "NOETL_SERVER_URL": plane.url,
        "NOETL_CONTROL_PLANE": plane.dialect.value,
        "NOETL_INTERNAL_API_TOKEN": plane.settings.token,
        "NATS_URL": plane.nats_url or "",
    }
    settings = load_settings(variables, dotenv=Path(os.devnull))
    client = ControlPlaneClient(open_transport(settings, max_connections=4), settings)
    app = _Doorkeeper(_Pages(plane, client).app, host, token)
    server = DevServer(app, _HEADERS)
    try:
        await server.begin(listener)
        yield f"http://{host}/{token}/"
    finally:
        await server.end()
        await client.close()


class _Doorkeeper:
    """Middleware that answers 404 to a request without the secret token in its path, or from another server's page.

    The middleware removes the token from the path of an accepted request.
    """

    def __init__(self, app: ASGIApp, host: str, token: str) -> None:
        self._app, self._addresses, self._prefix = app, OwnAddresses([f"http://{host}"]), f"/{token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app: ASGIApp = self._app if self._is_allowed(scope) else Response("not found", status_code=404)
        path = scope["path"].removeprefix(self._prefix)
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given, ours = scope["path"][: len(self._prefix) + 1], f"{self._prefix}/"
        if not self._addresses.accepts(scope) or not hmac.compare_digest(given.encode(), ours.encode()):
            return False
        return scope["method"] in ("GET", "HEAD") or any(name == b"origin" for name, _ in scope["headers"])


class _Pages:
    """HTTP routes of the page server: newest run, page of a run, events of a run, cancel a run, start a run again."""

    def __init__(self, plane: DevControlPlane, client: ControlPlaneClient) -> None:
        self._plane, self._client = plane, client
        self.app: Final = Starlette(
            routes=[
                Route("/", self._newest),
                Route("/runs/{execution_id:int}", self._page),
                Route("/runs/{execution_id:int}/events", self._events),
                Route("/runs/{execution_id:int}/cancel", self._cancel, methods=["POST"]),
                Route("/runs/{execution_id:int}/again", self._again, methods=["POST"]),
            ]
        )

    async def _newest(self, request: Request) -> Response:
        runs = self._runs()
        return RedirectResponse(f"runs/{runs[0]['id']}") if runs else Response("nothing has run yet", status_code=404)

    async def _page(self, request: Request) -> Response:
        run = await read_run_from(await self._client.plane(""), self._known(request).execution_id)
        return HTMLResponse(await asyncio.to_thread(render_page, run, self._client.own_secrets, runs=self._runs()))

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._changes(self._known(request).execution_id), media_type="text/event-stream")

    async def _changes(self, execution_id: int) -> AsyncIterator[bytes]:
        """Yield the run's data as server-sent events: at once, and after every event on the plane."""
        happened = asyncio.Event()
        happened.set()
        stop = self._plane.log.listen(lambda _: happened.set())
        try:
            while True:
                await happened.wait()
                happened.clear()
                started = asyncio.get_running_loop().time()
                run = await read_run_from(await self._client.plane(""), execution_id)
                data = await asyncio.to_thread(page_data, run, self._client.own_secrets, runs=self._runs())
                yield b"data: " + json_text.dumps(data) + b"\n\n"
                await asyncio.sleep(_REST_S + _SHARE * (asyncio.get_running_loop().time() - started))
        finally:
            stop()

    async def _cancel(self, request: Request) -> Response:
        execution_id = self._known(request).execution_id
        self._plane.executions.cancel_route(execution_id, {})
        return JSONResponse({"id": str(execution_id)})

    async def _again(self, request: Request) -> Response:
        execution = self._known(request)
        return JSONResponse({"id": str(await self._plane.execute(execution.path, execution.workload))})

    def _known(self, request: Request) -> Execution:
        execution = self._plane.executions.get(request.path_params["execution_id"])
        if execution is None:
            raise HTTPException(404, "this plane has no run with this id; open / for the newest run")
        return execution

    def _runs(self) -> list[dict[str, str]]:
        """Return the newest runs for the page's list, the newest first."""
        newest = sorted(self._plane.executions.all(), key=lambda one: one.execution_id, reverse=True)[:MOST_LISTED]
        return [
            {
                "id": str(one.execution_id),
                "path": one.path,
                "state": _STATES.get(one.status, "running"),
                "at": (moment(one.started_at) or "")[11:19],
            }
            for one in newest
        ]
