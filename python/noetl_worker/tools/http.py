"""Kind `http`: one request (tools.md 2.2, both workers' fields), through an httpx client of its own."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, ClassVar, Final, Literal

import httpx

from noetl_worker.errors import ConfigurationError, DocumentError, ToolError
from noetl_worker.json_text import dumps, loads
from noetl_worker.models import JsonValue, ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left
from noetl_worker.tools.http_auth import auth_headers

__all__ = ["HttpConfig", "HttpTool"]

DEFAULT_TIMEOUT_S: Final = 60.0
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LIMITS: Final = httpx.Limits(max_connections=200, max_keepalive_connections=50)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What is sent: the first of `json`, `form`, `body`, `payload` and `data` that is given.

    `data`: {"query": ..., "body": ...} goes where the names say; else the query of a GET, the JSON body of others.
    `auth`: a credential's alias, or an object (`http_auth`). `timeout` covers the whole
    exchange, in seconds (60). Answers over 16 MiB are cut and marked.
    """

    url: str
    method: str = "GET"
    headers: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    form: dict[str, Any] | None = None
    body: Any = None
    payload: Any = None
    data: Any = None
    auth: str | dict[str, Any] | None = None
    timeout: float | None = None
    follow_redirects: bool = True
    verify: bool = True
    response_type: Literal["json", "text", "binary"] = "json"


class HttpTool:
    """Connections are shared by a worker's commands; cookies are not, executions share nothing.

    differs-from-upstream: any spelling of the method; `timeout` counts; redirects are followed unless switched off.
    """

    kind: ClassVar[str] = "http"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = HttpConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"verify_ssl": "verify"}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def run(self, config: HttpConfig, context: ToolContext) -> ToolResult:
        client = self._client(config.verify)
        request = await _build(client, config, context)
        timeout_s = time_left(config.timeout, context) or DEFAULT_TIMEOUT_S
        started = time.monotonic()
        try:
            response, content, cut = await asyncio.wait_for(
                self._exchange(client, request, config.follow_redirects), timeout_s
            )
        except (asyncio.TimeoutError, TimeoutError, httpx.TimeoutException):
            return ToolResult.timed_out(timeout_s, data={"url": str(request.url), "status_code": None})
        except httpx.HTTPError as error:
            return _transport_failure(error, request)
        return _result(config, response, content, cut, time.monotonic() - started)

    async def aclose(self) -> None:
        """Close the connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    def _client(self, verify: bool) -> httpx.AsyncClient:
        client = self._clients.get(verify)
        if client is None:
            client = self._clients[verify] = httpx.AsyncClient(
                verify=verify,
                limits=_LIMITS,
                timeout=None,  # one deadline over the whole exchange instead: a trickling body has to end too
                transport=self._transport,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return client

    async def _exchange(
        self, client: httpx.AsyncClient, request: httpx.Request, follow_redirects: bool
    ) -> tuple[httpx.Response, bytes, bool]:
        """(response, content, whether the content was cut)."""
        response = await client.send(request, stream=True, follow_redirects=follow_redirects)
        try:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self._max_bytes:
                    return response, bytes(content[: self._max_bytes]), True
            return response, bytes(content), False
        finally:
            await response.aclose()


# ── the request ─────────────────────────────────────────────────────────────────────────────────


async def _build(client: httpx.AsyncClient, config: HttpConfig, context: ToolContext) -> httpx.Request:
    method = config.method.strip().upper()
    if method not in _METHODS:
        raise ConfigurationError(f"http: method {config.method!r} is none of {', '.join(sorted(_METHODS))}")
    headers = {name: _as_text(value) for name, value in config.headers.items() if value is not None}
    headers.update(await auth_headers(config.auth, context))
    query, body = _routed(config, method)
    try:
        url = httpx.URL(config.url)
        params = {name: _as_param(value) for name, value in {**query, **config.params}.items() if value is not None}
        if params:
            url = url.copy_with(params=url.params.merge(params))
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("an address starts with http:// or https:// and a host")
        return client.build_request(method, url, headers=_with_type(headers, body), **body)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConfigurationError(f"http: the request to {config.url!r} cannot be built: {error}") from error


def _routed(config: HttpConfig, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(query, httpx's keyword for the body), from the five fields that may hold one."""
    if config.json is not None:
        return {}, {"content": dumps(config.json)}
    if config.form is not None:
        return {}, {"data": {name: _as_text(value) for name, value in config.form.items() if value is not None}}
    for value in (config.body, config.payload):
        if value is not None:
            return {}, _content(value)
    data = config.data
    if isinstance(data, Mapping) and data and set(data) <= {"query", "body"}:
        query, body = data.get("query"), data.get("body")
        return dict(query or {}), {} if body is None else _content(body)
    if isinstance(data, Mapping) and method in _BODILESS:
        return dict(data), {}
    return {}, {} if data is None else _content(data)


def _content(value: JsonValue) -> dict[str, Any]:
    return {"content": value.encode() if isinstance(value, str) else dumps(value), "_text": isinstance(value, str)}


def _as_text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return dumps(value).decode()


def _as_param(value: JsonValue) -> str | list[str]:
    """A list is the parameter repeated; anything else is one text."""
    return [_as_text(item) for item in value] if isinstance(value, list) else _as_text(value)


def _with_type(headers: dict[str, str], body: dict[str, Any]) -> dict[str, str]:
    is_text = body.pop("_text", False)
    if "content" in body and not is_text and not any(name.lower() == "content-type" for name in headers):
        return {**headers, "Content-Type": "application/json"}
    return headers


# ── the answer ──────────────────────────────────────────────────────────────────────────────────


def _result(config: HttpConfig, response: httpx.Response, content: bytes, cut: bool, elapsed_s: float) -> ToolResult:
    """Data in both workers' forms: the payload under `body` (Rust) and `data` (Python)."""
    payload = _payload(config.response_type, response, content, cut)
    data: dict[str, JsonValue] = {
        "status_code": response.status_code,
        "headers": {name.lower(): value for name, value in response.headers.items()},
        "body": payload,
        "data": payload,
        "url": str(response.url),
        "elapsed": round(elapsed_s, 6),
    }
    if cut:
        data["truncated"] = True
    if response.is_success:
        return ToolResult.success(data, exit_code=0)
    status = response.status_code
    kind, retryable = _kind_of(status)
    return ToolResult.failure(
        f"HTTP {status} response", kind=kind, retryable=retryable, code=str(status), data=data, exit_code=1
    )


def _payload(response_type: str, response: httpx.Response, content: bytes, cut: bool) -> JsonValue:
    if response_type == "binary":
        return {"base64": base64.b64encode(content).decode(), "size": len(content)}
    if response_type == "json" and not cut and content.strip():
        try:
            return loads(content)
        except DocumentError:  # not JSON: given as text
            pass
    text = content.decode(_encoding(response), "replace")
    return f"{text}\n[... cut after {len(content)} bytes ...]" if cut else text


def _encoding(response: httpx.Response) -> str:
    try:
        "".encode(response.charset_encoding or "utf-8")
    except LookupError:
        return "utf-8"
    return response.charset_encoding or "utf-8"


def _kind_of(status: int) -> tuple[str, bool]:
    """(kind of tools.md 5.6, whether the same request may succeed later)."""
    if status in (401, 403):
        return "auth", False
    if status == 404:
        return "not_found", False
    if status == 408:
        return "timeout", True
    if status == 429:
        return "rate_limit", True
    return ("server_error", True) if status >= 500 else ("client_error", False)


def _transport_failure(error: httpx.HTTPError, request: httpx.Request) -> ToolResult:
    """The result for an answer that cannot be used. Raises ToolError when there was none.

    No answer at all is raised, as the Rust worker does: on that plane a returned failure completes the step, and an
    unreachable host would pass in silence. A task sequence's rules see both.
    """
    data: dict[str, JsonValue] = {"url": str(request.url), "status_code": None}
    text = f"{request.method} {request.url}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.TooManyRedirects):
        return ToolResult.failure(text, kind="client_error", data=data)
    if isinstance(error, httpx.DecodingError):
        return ToolResult.failure(text, kind="parse", data=data)
    raise ToolError(text, kind="connection", retryable=True, code=type(error).__name__) from error
