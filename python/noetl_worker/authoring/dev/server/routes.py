"""The plane as an ASGI application. The application parses requests, and calls the handler of each request's route."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_worker.authoring.dev.server.answers import JSON, TEXT, HttpAnswer, Refused, detail, invalid
from noetl_worker.authoring.dev.server.state import PlaneState
from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.json_text import loads

log = logging.getLogger(__name__)


class RouteCall(NamedTuple):
    """A parsed HTTP request, as the handler of its route gets it."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes
    body: JsonValue
    """The parsed JSON body; None for an empty body."""

    @property
    def execution_id(self) -> int:
        """Id of the execution in the request's path.

        Raises ValueError if the id is not a number. A real plane answers with the same error text.
        """
        return int(self.path["execution_id"])


Handler: TypeAlias = Callable[[RouteCall], HttpAnswer]


class Endpoint:
    """The ASGI application for all methods of one path.

    The application is an object, not a function: Starlette would call a function as a request handler, not as an ASGI
    application.
    """

    def __init__(self, template: str, handlers: Mapping[str, Handler], plane: PlaneState) -> None:
        self._template, self._handlers, self._plane = template, handlers, plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._plane.requests[f"{request.method} {self._template}"] += 1
        if self._plane.fault is not None:
            response = self._plane.fault(request)
            if inspect.isawaitable(response):
                response = await response
            if response is not None:
                await response(scope, receive, send)
                return
        raw = await request.body()
        given = self._answer(request, raw)
        await self._plane.dispatcher.flush()
        await respond(given, scope, receive, send)

    def _answer(self, request: Request, raw: bytes) -> HttpAnswer:
        handler = self._handlers.get(request.method)
        if handler is None:
            return _nothing(self._plane.dialect, 405, "Method Not Allowed")
        try:
            body = loads(raw) if raw else None
        except DocumentError:
            return _bad_json(raw, self._plane.dialect)
        call = RouteCall(request.path_params, request.query_params, request.headers, raw, body)
        try:
            return handler(call)
        except Refused as refused:
            return refused.answer
        except Exception as error:
            log.exception("dev failed at %s %s; report this with the traceback", request.method, self._template)
            return detail(500, str(error))


async def respond(given: HttpAnswer, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"content-type": given.media}
    if given.retry_after_s is not None:
        headers["retry-after"] = str(given.retry_after_s)
    await Response(given.body, given.status, headers)(scope, receive, send)


def _nothing(dialect: Dialect, status: int, text: str) -> HttpAnswer:
    return detail(status, text) if dialect is Dialect.PYTHON else HttpAnswer(status, b"", TEXT)


def _bad_json(raw: bytes, dialect: Dialect) -> HttpAnswer:
    if dialect is Dialect.RUST:
        return HttpAnswer(400, b"Failed to parse the request body as JSON", TEXT)
    try:
        json.loads(raw)
    except ValueError as error:
        position = getattr(error, "pos", 0)
        reason = getattr(error, "msg", str(error))
        return invalid("json_invalid", ["body", position], "JSON decode error", {}, {"error": reason}).answer
    return HttpAnswer(422, b"{}", JSON)


def build_app(plane: PlaneState, table: Mapping[str, Mapping[str, Handler]]) -> ASGIApp:
    """Return the ASGI application of a plane.

    The application counts each request. Before an answer is sent, the notifications of new commands are published.

    Args:
        table: the handlers by path template and method; templates are tried in this order.
    """

    async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
        plane.requests["unknown"] += 1
        await respond(_nothing(plane.dialect, 404, "Not Found"), scope, receive, send)

    routes = [Route(template, Endpoint(template, handlers, plane)) for template, handlers in table.items()]
    return Router(routes, redirect_slashes=False, default=unknown)
