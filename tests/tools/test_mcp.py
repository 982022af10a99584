"""Kind `mcp`: the reference server's recorded exchanges, and the answers that it does not give."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import RecordedLogger, run_tool
from noetl_worker.tools.kinds.mcp.mcp import McpTool
from tool_settings import tool_settings

from .mcp_recording import CALLS, Replay

Answer = Callable[[httpx.Request], httpx.Response]
ENDPOINT = "http://mcp.test/mcp"
MODES = ["sse-sessions", "json-sessions", "sse-stateless"]


def replayed(mode: str, name: str, **config: Any) -> Any:
    peer = Replay(f"{mode}/{name}")
    result = run_tool(McpTool(peer), {"endpoint": ENDPOINT, **CALLS[name], **config})
    assert peer.left == []
    return result


# ── the reference server ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_is_called(mode: str) -> None:
    result = replayed(mode, "add", server="calculator")
    assert result.status is ToolStatus.SUCCESS
    greeting = result.data.pop("initialize")
    assert (greeting["protocolVersion"], greeting["serverInfo"]["name"]) == ("2025-03-26", "real")
    assert result.data == {
        "status": "ok", "server": "calculator", "endpoint": ENDPOINT, "method": "tools/call", "tool": "add",
        "arguments": {"a": 1, "b": 2}, "text": "3",
        "result": {"content": [{"text": "3", "type": "text"}], "isError": False, "structuredContent": {"result": 3}},
    }  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_tools_are_listed(mode: str) -> None:
    data = replayed(mode, "list").data
    assert [tool["name"] for tool in data["result"]["tools"]] == ["add", "fail"]
    assert json.loads(data["text"]) == data["result"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "text"), [("fail", "Error executing tool fail"), ("unknown-tool", "Unknown tool: none")]
)
def test_a_tool_that_reports_an_error_is_a_failure(mode: str, name: str, text: str) -> None:
    """Recorded as success, dead providers went unnoticed."""
    result = replayed(mode, name)
    assert result.status is ToolStatus.ERROR
    tool = CALLS[name]["tool"]
    assert result.error.message == f"the MCP tool {tool!r} of 'kubernetes' reports an error: {text}"
    assert (result.error.kind, result.error.retryable) == ("execution", False)
    assert (result.data["status"], result.data["text"], result.data["result"]["isError"]) == ("error", text, True)


def test_bad_arguments_are_told_by_the_server() -> None:
    result = replayed("sse-sessions", "bad-arguments")
    assert "2 validation errors" in result.data["text"]
    assert result.error.kind == "execution"


@pytest.mark.parametrize("mode", MODES)
def test_a_method_that_the_server_does_not_have_is_a_failure_with_its_code(mode: str) -> None:
    result = replayed(mode, "unknown-method")
    assert result.error.message == "the MCP server 'kubernetes' refuses no/such: Method not found (code -32601)"
    assert (result.error.kind, result.error.code) == ("client_error", "-32601")
    assert result.data == {
        "status": "error", "server": "kubernetes", "endpoint": ENDPOINT, "method": "no/such",
        "error": result.error.message, "text": "Method not found", "result": "no/such",
    }  # fmt: skip


def test_the_version_that_the_server_answers_is_spoken() -> None:
    """The replay compares MCP-Protocol-Version of every request with the recorded one."""
    assert replayed("sse-sessions", "newer-protocol").data["initialize"]["protocolVersion"] == "2025-06-18"


# ── a scripted server ───────────────────────────────────────────────────────────────────────────


class Peer(httpx.AsyncBaseTransport):
    """Greets, and answers any other request as the test says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        message = json.loads(request.content) if request.content else {}
        if message.get("method") == "initialize":
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": message["id"], "result": {}})
        if "id" not in message and request.method == "POST":
            return httpx.Response(202)
        return self.answer(request)

    def messages(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]


def call(answer: Answer, config: dict[str, Any] | None = None, **context: Any) -> tuple[Any, Peer]:
    peer = Peer(answer)
    return run_tool(McpTool(peer), {"endpoint": ENDPOINT, **(config or {"tool": "t"})}, **context), peer


def refused(answer: Answer, config: dict[str, Any] | None = None) -> ToolError:
    with pytest.raises(ToolError) as caught:
        call(answer, config)
    return caught.value


def reply(request: httpx.Request, **result: Any) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": json.loads(request.content)["id"], "result": result})


def said(text: str, content_type: str = "application/json") -> Answer:
    """An answer with this text; $ID stands for the request's id."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = text.replace("$ID", str(json.loads(request.content)["id"]))
        return httpx.Response(200, headers={"content-type": content_type}, content=body.encode())

    return answer


def stream(*events: str, ending: str = "\n\n") -> Answer:
    return said("".join(event + ending for event in events), "text/event-stream; charset=utf-8")


NOTHING = 'data: {"jsonrpc": "2.0", "id": $ID, "result": {"content": []}}'
"""The event of an empty result."""


def test_ids_grow_from_the_first_one_and_arguments_come_from_the_input() -> None:
    _, peer = call(reply_nothing, {"tool": "t", "request_id": 7, "args": {"n": 1}})
    assert [message.get("id") for message in peer.messages()] == [7, None, 8]
    assert peer.messages()[2]["params"] == {"name": "t", "arguments": {"n": 1}}
    assert [message["method"] for message in peer.messages()] == [
        "initialize", "notifications/initialized", "tools/call",
    ]  # fmt: skip


def reply_nothing(request: httpx.Request) -> httpx.Response:
    return reply(request, content=[])


@pytest.mark.parametrize(
    "config",
    [
        {"tool": "t", "arguments": {"a": 1}},
        {"tool_name": "t", "arguments": '{"a": 1}'},
        {"action": "tools/call", "tool": "t", "input": {"a": 1}},
        {"tool": "t", "arguments": {"a": 1}, "input": {"from_the_step": 2}},
    ],
)
def test_spellings_of_a_call(config: dict[str, Any]) -> None:
    _, peer = call(reply_nothing, config)
    assert peer.messages()[-1]["params"] == {"name": "t", "arguments": {"a": 1}}


def test_any_other_method_passes_its_params() -> None:
    result, peer = call(
        lambda request: reply(request, contents=[{"uri": "x", "text": "one"}, {"uri": "y", "blob": "AA=="}]),
        {"method": "resources/read", "params": {"uri": "x"}},
    )
    assert peer.messages()[-1]["params"] == {"uri": "x"}
    assert result.data["text"] == "one"


def test_all_pages_of_the_tools_are_listed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        cursor = json.loads(request.content)["params"].get("cursor")
        if cursor is None:
            return reply(request, tools=[{"name": "a"}], nextCursor="2")
        return reply(request, tools=[{"name": "b"}])

    result, _ = call(answer, {"method": "tools/list"})
    assert result.data["result"] == {"tools": [{"name": "a"}, {"name": "b"}]}


def test_an_event_may_have_several_lines_and_others_may_come_before() -> None:
    result, peer = call(
        stream(
            ": comment",
            'event: message\ndata: {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}',
            "data:",
            'data: {"jsonrpc": "2.0", "id": 99, "result": {}}',
            'id: 5\ndata: {"jsonrpc": "2.0", "id": $ID,\ndata:  "result": {"content": [{"text": "é"}]}}',
        )
    )
    assert result.data["text"] == "é"
    assert len(peer.requests) == 3


@pytest.mark.parametrize("ending", ["\r\n", ""], ids=["cr-lf", "no-blank-line"])
def test_lines_may_end_with_cr_lf_and_the_stream_without_a_blank_line(ending: str) -> None:
    assert call(stream(NOTHING, ending=ending))[0].status is ToolStatus.SUCCESS


def test_what_the_server_asks_is_answered() -> None:
    first = stream(
        'data: {"jsonrpc": "2.0", "id": "p", "method": "ping"}',
        'data: {"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {}}',
        NOTHING,
    )

    def answer(request: httpx.Request) -> httpx.Response:
        return first(request) if "params" in json.loads(request.content) else httpx.Response(202)

    result, peer = call(answer)
    assert result.status is ToolStatus.SUCCESS
    assert peer.messages()[3:] == [
        {"jsonrpc": "2.0", "id": "p", "result": {}},
        {
            "jsonrpc": "2.0",
            "id": "s",
            "error": {"code": -32601, "message": "this client has no sampling/createMessage"},
        },
    ]


def test_the_answer_is_found_in_a_batch() -> None:
    batch = '[{"method": "x"}, {"id": $ID, "result": {"content": [{"text": "b"}]}}]'
    assert call(said(batch))[0].data["text"] == "b"


def test_the_credential_and_headers_go_with_every_request() -> None:
    _, peer = call(
        reply_nothing,
        {"tool": "t", "auth": "key", "headers": {"X-Tenant": 5, "X-None": None}},
        credentials={"key": {"type": "bearer", "token": "t0ken"}},
    )
    assert {request.headers["authorization"] for request in peer.requests} == {"Bearer t0ken"}
    assert {request.headers["x-tenant"] for request in peer.requests} == {"5"}


@pytest.mark.parametrize(
    "problem",
    [
        httpx.ReadError("gone"),
        ssl.SSLError("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        RuntimeError("Cannot send a request, as the client has been closed."),
    ],
)
def test_a_session_that_cannot_be_closed_does_not_spoil_the_result(problem: Exception) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            raise problem
        response = reply_nothing(request)
        response.headers["Mcp-Session-Id"] = "s1"
        return response

    logger = RecordedLogger()
    result, peer = call(answer, logger=logger)
    assert result.status is ToolStatus.SUCCESS
    assert (peer.requests[-1].method, peer.requests[-1].headers["mcp-session-id"]) == ("DELETE", "s1")
    assert [event for _, event, _ in logger.records] == ["mcp_session_not_closed"]


# ── failures ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(401, "auth", False), (404, "not_found", False), (429, "rate_limit", True), (503, "server_error", True)],
)
def test_an_http_failure_is_told_by_kind(status: int, kind: str, retryable: bool) -> None:
    error = refused(lambda request: httpx.Response(status, text="<html>\n busy </html>"))
    assert str(error) == f"the MCP server at {ENDPOINT} answers HTTP {status}: <html> busy </html>"
    assert (error.kind, error.retryable, error.code) == (kind, retryable, str(status))


def test_an_http_failure_with_a_json_rpc_error_is_that_error() -> None:
    error = {"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Session not found"}}
    result, _ = call(lambda request: httpx.Response(404, json=error))
    assert result.error.message == "the MCP server 'kubernetes' refuses tools/call: Session not found (code -32600)"


def test_a_server_error_of_json_rpc_has_its_kind() -> None:
    result, _ = call(said('{"id": $ID, "error": {"code": -32603, "message": "boom", "data": [1]}}'))
    assert (result.error.kind, result.error.code, result.data["result"]) == ("server_error", "-32603", [1])


def test_an_answer_that_is_no_json_rpc_is_told_with_its_beginning() -> None:
    for body in ("<html>", "[1]", '{"id": 77, "result": {}}'):
        error = refused(lambda request, body=body: httpx.Response(200, text=body))
        assert (str(error), error.kind) == (
            f"the MCP server at {ENDPOINT} answers no JSON-RPC ({body}): check 'endpoint'", "parse",
        )  # fmt: skip
    error = refused(stream("data: not json"))
    assert str(error).startswith(f"the MCP server at {ENDPOINT} sends an event that is not JSON: ")


def test_a_stream_without_the_answer_is_a_lost_connection() -> None:
    error = refused(stream('data: {"jsonrpc": "2.0", "method": "notifications/message"}'))
    assert (str(error), error.kind, error.retryable) == (
        f"the MCP server at {ENDPOINT} ended its stream without the answer: read the server's log", "connection", False,
    )  # fmt: skip


def test_an_endless_answer_is_cut_off() -> None:
    most = 16 * 1024 * 1024
    expected = f"the MCP server at {ENDPOINT} answers with more than {most} bytes: ask for less"
    assert str(refused(stream(*[": keep alive" + " " * 2000] * (most // 2000)))) == expected
    assert str(refused(lambda request: httpx.Response(200, json={"x": "y" * most}))) == expected


def test_an_unreachable_server_is_raised_without_its_query() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    error = refused(refuse, {"tool": "t", "endpoint": f"{ENDPOINT}?key=hidden"})
    assert (str(error), error.kind, error.retryable) == (
        f"no answer from the MCP server at {ENDPOINT}: ConnectError: refused", "connection", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "retryable"),
    [
        (httpx.ConnectTimeout, True),
        (httpx.PoolTimeout, True),
        (httpx.ReadError, False),
        (httpx.ReadTimeout, False),
        (httpx.RemoteProtocolError, False),
    ],
)
def test_only_a_request_that_cannot_have_been_sent_is_retryable(lost: type[httpx.HTTPError], retryable: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise lost("lost")

    error = refused(answer)
    assert (error.kind, error.retryable, error.code) == ("connection", retryable, lost.__name__)


def test_call_whose_servers_question_cannot_be_answered_has_been_sent() -> None:
    asks = stream('data: {"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage"}')

    def answer(request: httpx.Request) -> httpx.Response:
        if b"sampling/createMessage" in request.content:
            raise httpx.ConnectError("gone")
        return asks(request)

    assert (refused(answer).kind, refused(answer).retryable) == ("connection", False)


class NoAnswer(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b": alive\n\n"
        await asyncio.Event().wait()


def never_answering(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=NoAnswer())


def test_a_stream_that_never_answers_ends_with_the_timeout() -> None:
    result, _ = call(never_answering, {"tool": "t", "timeout": 0.5})
    assert result.status is ToolStatus.TIMEOUT
    assert result.data == {"status": "error", "server": "kubernetes", "endpoint": ENDPOINT, "method": "tools/call"}


def test_the_timeout_may_come_from_the_workers_settings() -> None:
    settings = tool_settings(NOETL_MCP_REQUEST_TIMEOUT_SECONDS="0.5")
    assert call(never_answering, settings=settings)[0].status is ToolStatus.TIMEOUT


# ── health and endpoints ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/healthz"),
        ("/", "/healthz"),
        ("/mcp", "/healthz"),
        ("/mcp/", "/healthz"),
        ("/a/sse", "/a/healthz"),
        ("/message", "/healthz"),
        ("/tools", "/tools/healthz"),
        ("/mcp/v2", "/mcp/v2/healthz"),
    ],
)
def test_health_asks_beside_the_endpoint(path: str, asked: str) -> None:
    endpoint = f"http://mcp.test{path}"
    result, peer = call(lambda request: httpx.Response(200, text="ok"), {"endpoint": endpoint, "method": "health"})
    assert (peer.requests[0].method, peer.requests[0].url.path) == ("GET", asked)
    shown = str(httpx.URL(endpoint))
    assert result.data == {
        "status": "ok", "server": "kubernetes", "endpoint": shown, "method": "health", "healthy": True, "text": "ok",
    }  # fmt: skip


def test_a_server_that_is_not_well_is_a_failure() -> None:
    result, _ = call(lambda request: httpx.Response(503, text="down"), {"method": "health"})
    assert (result.error.kind, result.data["healthy"], result.data["text"]) == ("server_error", False, "down")


@pytest.mark.parametrize(
    ("config", "settings", "server", "host"),
    [
        ({"server": "my.tools"}, {"NOETL_MCP_MY_TOOLS_ENDPOINT": "http://a/"}, "my.tools", "a"),
        ({"server": "my-tools"}, {"NOETL_MCP_MY_TOOLS_URL": "http://b/"}, "my-tools", "b"),
        ({"server": "x"}, {"NOETL_MCP_URL": "http://c/", "NOETL_MCP_KUBERNETES_URL": "http://d/"}, "x", "c"),
        ({}, {"NOETL_MCP_KUBERNETES_ENDPOINT": "http://e/"}, "kubernetes", "e"),
        ({"name": "x"}, {"NOETL_MCP_X_URL": "http://f/", "NOETL_MCP_KUBERNETES_URL": "http://e/"}, "x", "f"),
        # the task's label in `name` does not hide the server
        ({"name": "my_label"}, {"NOETL_MCP_KUBERNETES_ENDPOINT": "http://e/"}, "kubernetes", "e"),
    ],
)
def test_the_workers_settings_say_where_a_server_is(
    config: dict[str, Any], settings: dict[str, str], server: str, host: str
) -> None:
    peer = Peer(reply_nothing)
    result = run_tool(McpTool(peer), {"tool": "t", **config}, settings=tool_settings(**settings))
    assert (result.data["server"], peer.requests[0].url.host) == (server, host)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"server": "a b"},
            "mcp: nothing says where the server 'a b' is: give 'endpoint', or set NOETL_MCP_A_B_ENDPOINT or "
            "NOETL_MCP_URL for the worker",
        ),
        (
            {"endpoint": "mcp.test"},
            "mcp: endpoint 'mcp.test' is no address: an address starts with http:// or https:// and a host",
        ),
    ],
)
def test_a_server_without_an_address_is_told(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_tool(McpTool(), {"tool": "t", **config})
    assert str(caught.value) == message
