"""Kind `mcp`: sends one request to a Model Context Protocol server over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import httpx

from noetl_worker.errors import ConfigurationError, DocumentError, ResourceShortage, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.text.json_text import dumps, loads_exact
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.deadline import in_time, time_left
from noetl_worker.tools.error_kinds import http_error_kind
from noetl_worker.tools.fields import excerpt, ignored_field
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.auth import OverHttp, check_auth
from noetl_worker.tools.http.client import http_address, send, shown
from noetl_worker.tools.http.secret_hosts import Destination
from noetl_worker.tools.kinds.mcp.session import McpSession, RpcError
from noetl_worker.tools.process.shortage import before_any_effect, is_shortage

DEFAULT_SERVER: Final = "kubernetes"
_HEALTH_PATHS: Final = ("", "/mcp", "/sse", "/message")
_MAX_PAGES: Final = 50
_CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class McpConfig:
    """A request to an MCP server: a call of a tool, the list of tools, any other method, or the server's health.

    The server's address is `endpoint`, else the worker's NOETL_MCP_<SERVER>_ENDPOINT (or _URL), else NOETL_MCP_URL.
    """

    endpoint: str | None = None
    """Address of the server's MCP endpoint."""
    server: str | None = None
    """Name of the server: the <SERVER> in NOETL_MCP_<SERVER>_ENDPOINT, and the `server` of the result. Absent: `name`,
    else kubernetes."""
    name: str | None = None
    """Name of the server if `server` is absent. A plane may put a task's label into this field, so use `server` in
    tasks."""
    method: str = "tools/call"
    """MCP method, such as tools/call, tools/list or resources/read. `health` is a GET of the server's /healthz
    instead."""
    tool: str | None = None
    """Name of the tool that tools/call calls."""
    arguments: dict[str, Any] | str | None = None
    """Arguments of the tool: an object, or the JSON text of an object."""
    input: dict[str, Any] = field(default_factory=dict)
    """Arguments of the tool when `arguments` is absent."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters of the method. tools/call does not send this field."""
    auth: str | dict[str, Any] | None = None
    """A credential's alias, or an object, as in the http tool."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Further HTTP headers of the requests."""
    request_id: int = 1
    """JSON-RPC id of the first request. Each further request has the next number."""
    protocol_version: str = "2025-03-26"
    """Protocol version offered to the server. The worker uses the version in the server's answer."""
    client_name: str = "noetl-worker"
    """Client name sent to the server."""
    client_version: str = "0"
    """Client version sent to the server."""
    capabilities: dict[str, Any] = field(default_factory=dict)
    """Client capabilities sent to the server. The worker implements no capability, and refuses every request of the
    server except ping."""
    timeout: float | None = None
    """Maximum seconds for all requests to the server. Absent: NOETL_MCP_REQUEST_TIMEOUT_SECONDS, or 60."""

    def __post_init__(self) -> None:
        if isinstance(self.arguments, str):
            object.__setattr__(self, "arguments", _object(self.arguments))
        if self.method == "tools/call" and not self.tool:
            raise ConfigurationError("tools/call requires 'tool'", field="tool", reason="missing")
        if self.endpoint is not None:
            http_address(self.endpoint, "endpoint", "mcp")
        check_auth(self.auth)

    def parameters(self) -> dict[str, JsonValue]:
        """Return the `params` of the JSON-RPC request: tool name and arguments for tools/call, else the field
        `params`."""
        if self.method == "tools/call":
            return {"name": self.tool, "arguments": self.given_arguments()}
        return dict(self.params)

    def given_arguments(self) -> dict[str, JsonValue]:
        return dict(self.arguments if isinstance(self.arguments, Mapping) else self.input)


class McpTool(OverHttp):
    """Tool of kind `mcp`. After a success the data is {status: ok, server, endpoint, method, tool, arguments, text,
    result, initialize}; `text` joins the texts in the result. The method health has the data {status: ok, server,
    endpoint, method, healthy, text}. The result of tools/list has the tools of all pages.

    If the server reports a failure, the data is {status: error, server, endpoint, method, tool, arguments, error, text,
    result}. A tool result with `isError` has the error kind execution. A JSON-RPC error has the kind client_error or
    server_error, and keeps its code. Other kinds: connection (no answer), auth, not_found, rate_limit, server_error
    (HTTP status), parse.

    differs-from-upstream: a server's failure fails the step (both published workers record a success with status
    error); the session is closed; `notifications/initialized` is sent.
    """

    kind: ClassVar[str] = "mcp"
    config_model: ClassVar[type] = McpConfig
    field_aliases: ClassVar[Mapping[str, str]] = {
        "url": "endpoint",
        "server_url": "endpoint",
        "base_url": "endpoint",
        "action": "method",
        "tool_name": "tool",
    }

    def ignored(self, config: McpConfig) -> list[ConfigurationError]:
        """Return a warning for each field that the step's `method` does not send, such as `params` with tools/call."""
        unread = ("params",) if config.method == "tools/call" else ("tool", "arguments")
        why = f"{config.method} does not send it"
        return [ignored_field(self.kind, name, why) for name in unread if getattr(config, name)]

    async def run(self, config: McpConfig, context: ToolContext) -> ToolResult:
        server, endpoint = _endpoint(config, context.settings)
        with before_any_effect("to fetch the credential"):
            permit = await self._authorizer.authorize(config.auth, context, Destination(str(endpoint), config.headers))
        headers = {name: str(value) for name, value in config.headers.items() if value is not None}
        headers = {**context.worker.with_trace(headers), **permit.headers}
        endpoint = endpoint.copy_merge_params(dict(permit.params)) if permit.params else endpoint
        about: dict[str, JsonValue] = {"server": server, "endpoint": shown(endpoint), "method": config.method}
        timeout_s = time_left(config.timeout or context.settings.mcp_request_timeout_s, context)
        if config.method == "health":
            call = self._health(endpoint, headers, about, context.settings)
        else:
            call = self._converse(config, context, endpoint, headers, about)
        return await in_time(call, timeout_s, {"status": "error", **about})

    async def _converse(
        self,
        config: McpConfig,
        context: ToolContext,
        endpoint: httpx.URL,
        headers: Mapping[str, str],
        about: dict[str, JsonValue],
    ) -> ToolResult:
        if config.method == "tools/call":
            about = {**about, "tool": config.tool, "arguments": config.given_arguments()}
        async with self._clients.lease(to=str(endpoint), settings=context.settings) as client:
            session = McpSession(client, endpoint, headers, config.request_id, context.stop)
            try:
                with before_any_effect("to connect to the MCP server"):
                    greeting = await session.initialize(
                        {
                            "protocolVersion": config.protocol_version,
                            "capabilities": config.capabilities,
                            "clientInfo": {"name": config.client_name, "version": config.client_version},
                        }
                    )
                result = await _asked(session, config)
            except RpcError as error:
                return _rpc_failure(error, about)
            finally:
                await _closed(session, context)
        return await off_loop(session.size, lambda: _result(result, {**about, "initialize": greeting}))

    async def _health(
        self, endpoint: httpx.URL, headers: Mapping[str, str], about: dict[str, JsonValue], settings: ToolSettings
    ) -> ToolResult:
        path = endpoint.path.rstrip("/")
        last = path[path.rfind("/") :] if path else ""
        url = endpoint.copy_with(path=f"{path.removesuffix(last) if last in _HEALTH_PATHS else path}/healthz")
        try:
            async with self._clients.lease(to=str(url), settings=settings) as client:
                request = httpx.Request("GET", url, headers=dict(headers))
                response = await send(client, request, follow_redirects=False)
                text = (await read(response, 65_536)).text()
        except httpx.HTTPError as error:
            message = f"no answer from the MCP server at {shown(url)}: {type(error).__name__}: {error}"
            failure = ToolError(message, kind="connection", retryable=True, code=type(error).__name__)
            raise (ResourceShortage(message) if is_shortage(error) else failure) from error
        if response.is_success:
            return ToolResult.success({"status": "ok", **about, "healthy": True, "text": text})
        kind, retryable = http_error_kind(response.status_code)
        message = f"the MCP server at {shown(url)} answers HTTP {response.status_code}"
        data = {"status": "error", **about, "healthy": False, "error": message, "text": text}
        return ToolResult.failure(message, kind=kind, retryable=retryable, code=str(response.status_code), data=data)


def _endpoint(config: McpConfig, settings: ToolSettings) -> tuple[str, httpx.URL]:
    """Return the server's name and endpoint. Raises ConfigurationError if no field and no setting has an endpoint; the
    error names the variables to set."""
    names = [config.server] if config.server else [name for name in (config.name, DEFAULT_SERVER) if name]
    address, server = config.endpoint, names[0]
    if address is None:
        variables = ((name, f"NOETL_MCP_{_slug(name)}{end}") for name in names for end in ("_ENDPOINT", "_URL"))
        known = ((name, settings.named.get(variable)) for name, variable in variables)
        server, address = next(((name, value) for name, value in known if value), (server, None))
    address = address or settings.mcp_url
    if not address:
        raise ConfigurationError(
            f"mcp: nothing says where the server {server!r} is: give 'endpoint', or set "
            f"NOETL_MCP_{_slug(server)}_ENDPOINT or NOETL_MCP_URL for the worker"
        )
    return server, http_address(address, "endpoint", "mcp")


def _slug(server: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", server.upper())


def _object(text: str) -> dict[str, JsonValue]:
    try:
        value = loads_exact(text)
    except DocumentError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError("arguments must be an object, or its JSON text", field="arguments")
    return value


async def _asked(session: McpSession, config: McpConfig) -> Mapping[str, JsonValue]:
    result = await session.request(config.method, config.parameters())
    tools, cursor = result.get("tools"), result.get("nextCursor")
    if config.method != "tools/list" or not isinstance(tools, list) or "cursor" in config.params:
        return result
    every, pages = list(tools), 1
    while cursor and pages < _MAX_PAGES:
        more = await session.request("tools/list", {**config.params, "cursor": cursor})
        every += more.get("tools") or []
        cursor, pages = more.get("nextCursor"), pages + 1
    rest = {key: value for key, value in result.items() if key != "nextCursor"}
    return {**rest, "tools": every, **({"nextCursor": cursor} if cursor else {})}


async def _closed(session: McpSession, context: ToolContext) -> None:
    """Close the session at the MCP server. A failure is only logged: a session that stays open costs memory on the
    server, not in this worker."""
    try:
        await asyncio.wait_for(session.close(), _CLOSE_S)
    except Exception as error:  # a failed close does not change the call's outcome
        context.logger.debug("mcp_session_not_closed", problem=f"{type(error).__name__}: {error}")


def _result(result: Mapping[str, JsonValue], about: Mapping[str, JsonValue]) -> ToolResult:
    text = _text(result)
    if not result.get("isError"):
        return ToolResult.success({"status": "ok", **about, "text": text, "result": result})
    message = f"the MCP tool {about.get('tool')!r} of {about['server']!r} reports an error: {excerpt(text, 500)}"
    data = {"status": "error", **about, "error": message, "text": text, "result": result}
    return ToolResult.failure(message, kind="execution", data=data)


def _rpc_failure(error: RpcError, about: Mapping[str, JsonValue]) -> ToolResult:
    message = f"the MCP server {about['server']!r} refuses {about['method']}: {error} (code {error.code})"
    is_ours = error.code in (-32600, -32601, -32602, -32700)
    data = {"status": "error", **about, "error": message, "text": str(error), "result": error.data}
    kind = "client_error" if is_ours else "server_error"
    return ToolResult.failure(message, kind=kind, code=str(error.code), data=data)


def _text(result: Mapping[str, JsonValue]) -> str:
    """Return the texts in the result's list of contents, separated by line breaks. Return a result without such a list
    as JSON."""
    contents = result.get("content") or result.get("contents")
    if isinstance(contents, list):
        texts = [
            content["text"]
            for content in contents
            if isinstance(content, Mapping) and isinstance(content.get("text"), str)
        ]
        return "\n".join(texts)
    return dumps(result).decode()
