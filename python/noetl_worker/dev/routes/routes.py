"""The real planes' routes, in front of the modules that answer them."""

from __future__ import annotations

import inspect
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_worker.dev.routes.answers import JSON, TEXT, HttpAnswer, detail, invalid
from noetl_worker.errors import DocumentError
from noetl_worker.json_text import loads
from noetl_worker.models.wire import Dialect, JsonValue

log = logging.getLogger(__name__)

Fault: TypeAlias = Callable[[Request], "Response | Awaitable[Response | None] | None"]
"""A test's way in: gets each request first and may answer it, delay it, or let it pass with None."""


class RouteCall(NamedTuple):
    """One request as a handler sees it."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes
    body: JsonValue
    """The JSON body; None when there is none."""

    def number(self, name: str) -> int:
        """A path segment as id. Raises ValueError with Python's own words, which the real plane answers."""
        return int(self.path[name])


Handler: TypeAlias = Callable[[RouteCall], HttpAnswer]


class RequestGate:
    """What every request passes: the count, the fault hook, and what follows an answer."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect: Final = dialect
        self.counts: Counter[str] = Counter()
        self.fault: Fault | None = None
        self.after: Callable[[], Awaitable[None] | None] = lambda: None


class Endpoint:
    """All methods of one path, as an ASGI application: Starlette then adds no wrapper of its own."""

    def __init__(self, template: str, handlers: Mapping[str, Handler], gate: RequestGate) -> None:
        self._template, self._handlers, self._gate = template, handlers, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        gate = self._gate
        gate.counts[f"{request.method} {self._template}"] += 1
        if gate.fault is not None:
            response = gate.fault(request)
            if inspect.isawaitable(response):
                response = await response
            if response is not None:
                await response(scope, receive, send)
                return
        raw = await request.body()
        given = self._answer(request, raw)
        following = gate.after()
        if following is not None:
            await following
        await respond(given, scope, receive, send)

    def _answer(self, request: Request, raw: bytes) -> HttpAnswer:
        handler = self._handlers.get(request.method)
        if handler is None:
            return method_not_allowed(self._gate.dialect)
        try:
            body = loads(raw) if raw else None
        except DocumentError:
            return _bad_json(raw, self._gate.dialect)
        call = RouteCall(request.path_params, request.query_params, request.headers, raw, body)
        try:
            return handler(call)
        except Exception as error:
            log.exception("%s %s", request.method, self._template)
            return detail(500, str(error))


async def respond(given: HttpAnswer, scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"content-type", given.media.encode()),
        (b"content-length", str(len(given.body)).encode()),
    ]
    if given.retry_after_s is not None:
        headers.append((b"retry-after", str(given.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": given.status, "headers": headers})
    await send({"type": "http.response.body", "body": given.body})


def method_not_allowed(dialect: Dialect) -> HttpAnswer:
    return detail(405, "Method Not Allowed") if dialect is Dialect.PYTHON else HttpAnswer(405, b"", TEXT)


def not_found(dialect: Dialect) -> HttpAnswer:
    return detail(404, "Not Found") if dialect is Dialect.PYTHON else HttpAnswer(404, b"", TEXT)


def _bad_json(raw: bytes, dialect: Dialect) -> HttpAnswer:
    if dialect is Dialect.RUST:
        return HttpAnswer(400, b"Failed to parse the request body as JSON", TEXT)
    try:
        json.loads(raw)
    except ValueError as error:
        position = getattr(error, "pos", 0)
        reason = getattr(error, "msg", str(error))
        return invalid("json_invalid", ["body", position], "JSON decode error", {}, {"error": reason})
    return HttpAnswer(422, b"{}", JSON)


def build_app(table: Mapping[str, Mapping[str, Handler]], gate: RequestGate) -> ASGIApp:
    """The application. `table`: path template -> method -> handler, in the order in which they are tried."""

    async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            gate.counts["unknown"] += 1
            await respond(not_found(gate.dialect), scope, receive, send)

    routes = [Route(template, Endpoint(template, handlers, gate)) for template, handlers in table.items()]
    return Router(routes, redirect_slashes=False, default=unknown)
