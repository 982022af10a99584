"""Kind `http` against a server that misbehaves: what arrives, what is cut, what is told."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import sys
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from closed_port import closed_port
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.testing import ToolCall, arun_tool, call_tool, run_tool, tool_context
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S

from .http_server import Answer, Seen, ToolServer
from .processes import PeakMemory, open_descriptors

PEM = Path(__file__).with_name("loopback.pem")


def get(server: ToolServer, path: str, **config: Any) -> ToolCall:
    return call_tool("http", {"url": server.url(path), **config})


# ── endpoints that answer badly ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/drop", "Server disconnected without sending a response."),
        ("/malformed", "bad Content-Length"),
        ("/garbage", "illegal status line"),
        ("/short", "peer closed connection without sending complete message body"),
    ],
)
def test_no_usable_answer_is_a_connection_error(server: ToolServer, path: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        run_tool("http", {"url": server.url(path)})
    assert (caught.value.kind, caught.value.retryable, caught.value.code) == ("connection", True, "RemoteProtocolError")
    assert str(caught.value).startswith(f"GET {server.url(path)}: ")


def test_refused_connection_and_unknown_host_are_connection_errors() -> None:
    for host in (f"127.0.0.1:{closed_port()}", "no-such-host.invalid"):
        with pytest.raises(ToolError, match=f"GET http://{host}/: ConnectError: ") as caught:
            run_tool("http", {"url": f"http://{host}/?api_key=hidden"})
        assert (caught.value.kind, caught.value.retryable) == ("connection", True)
        assert "hidden" not in str(caught.value)


def test_body_that_is_not_what_it_says_is_a_parse_error(server: ToolServer) -> None:
    result = get(server, "/badgzip")
    assert (result.kind, result.code) == ("parse", "DecodingError")
    assert "the body is not valid gzip" in str(result.message)


@pytest.mark.parametrize(
    ("path", "config", "message"),
    [
        ("/silent", {"timeout": 0.2}, "Execution timed out after 0.2 seconds"),
        ("/trickle", {"timeout": 0.2}, "Execution timed out after 0.2 seconds"),
        ("/silent", {"attempt_timeout": 0.2}, "Execution timed out after 0.2 seconds"),
        ("/silent", {"read_timeout": 0.2}, "http: nothing came for 0.2 seconds (read_timeout)"),
    ],
)
def test_every_timeout_ends_the_call(server: ToolServer, path: str, config: dict[str, Any], message: str) -> None:
    result = run_tool("http", {"url": server.url(path), **config})
    assert result.status is ToolStatus.TIMEOUT
    assert result.error is not None
    assert (result.error.message, result.error.retryable) == (message, True)


def test_connection_that_is_not_made_in_time_names_its_timeout() -> None:
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full: later connections wait for ever
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        result = run_tool("http", {"url": url, "connect_timeout": 0.2, "timeout": PATIENCE_S})
    assert result.status is ToolStatus.TIMEOUT
    assert result.error is not None
    assert result.error.message == "http: no connection after 0.2 seconds (connect_timeout)"


def test_user_and_password_of_an_address_are_used_and_not_told(server: ToolServer) -> None:
    address = server.url("/echo").replace("http://", "http://me:hidden@")
    result = run_tool("http", {"url": address}, dialect=Dialect.PYTHON)
    sent = result.data["data"]["headers"]["authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:hidden"
    assert result.data["url"] == server.url("/echo")
    late = run_tool("http", {"url": address.replace("/echo", "/silent"), "timeout": 0.2})
    assert late.data["url"] == server.url("/silent")


# ── size ────────────────────────────────────────────────────────────────────────────────────────


async def measured(server: ToolServer, path: str, **config: Any) -> tuple[ToolResult, float]:
    """Return the result, and the most that was allocated at one time, in MiB.

    Not by run_tool: asyncio.run writes out its result's repr.
    """
    found: list[Any] = []
    await arun_tool("http", {"url": server.url(path.replace("=100", "=1")), **config})  # what is made once is made
    with PeakMemory() as peak:
        found.append(await arun_tool("http", {"url": server.url(path), **config}))
    found.append(peak.grown_mib)
    return found[0], found[1]


@pytest.mark.parametrize(
    ("path", "response_type"),
    [("/huge?mb=100", "json"), ("/huge?mb=100&chunked", "text"), ("/huge?mb=100&chunked", "binary")],
)
async def test_hundred_megabytes_cost_a_bounded_amount_of_memory(
    server: ToolServer, path: str, response_type: str
) -> None:
    result, grown_mib = await measured(server, path, response_type=response_type)
    assert result.data["truncated"] is True
    assert result.data["notes"] == ["body: cut after 8388608 bytes; max_response_bytes sets the limit"]
    if response_type == "binary":
        assert result.data["body"]["size"] == 8 << 20
    else:
        whole = "" if "chunked" in path else f" of {100 << 20}"
        assert result.data["body"].endswith(f"cdef\n[... cut after 8388608{whole} bytes ...]")
    assert grown_mib <= 25  # at most three copies of 8 MiB exist at once, and the server's blocks


async def test_unpacking_stops_at_the_limit(server: ToolServer) -> None:
    result, grown_mib = await measured(server, "/bomb?mb=100", max_response_bytes=1 << 20)
    assert result.data["truncated"] is True
    assert result.data["body"].endswith("\n[... cut after 1048576 bytes ...]")
    assert grown_mib <= 4


async def test_file_of_a_hundred_megabytes_is_sent_from_disk(server: ToolServer, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100 << 20)
    result, grown_mib = await measured(server, "/sink", method="POST", files={"f": str(tmp_path / "large")})
    assert result.data["data"]["received"] > 100 << 20
    assert grown_mib <= 2


def test_cut_answers_leave_no_connection_open(server: ToolServer) -> None:
    before = open_descriptors()
    get(server, "/huge?mb=20", max_response_bytes=1000)
    assert len(open_descriptors() - before) <= 1  # the server's side may take a moment


# ── text, bytes, JSON ───────────────────────────────────────────────────────────────────────────


def b64(data: bytes) -> dict[str, Any]:
    return {"base64": base64.b64encode(data).decode(), "size": len(data)}


@pytest.mark.parametrize(
    ("data", "content_type", "response_type", "payload", "notes"),
    [
        (b'{"a": 1}', "text/plain", "json", {"a": 1}, None),
        (b'{"id":767527441685282836}', "application/json", "json", {"id": 767527441685282836}, None),
        (b"1", "application/json", "text", "1", None),
        (b"plain", "text/plain", "json", "plain", None),
        (b'\xef\xbb\xbf{"a": 1}', "application/json", "json", {"a": 1}, None),
        ("é".encode("latin-1"), "text/plain; charset=iso-8859-1", "json", "é", None),
        ('"é"'.encode("latin-1"), "application/json; charset=iso-8859-1", "json", "é", None),
        (b"a", "text/plain; charset=no-such", "text", "a",
         ["body: the charset 'no-such' is not supported, read as UTF-8"]),
        (b"a\xffb", "text/plain", "json", "a\ufffdb", ["body: not utf-8 at byte 1, unreadable bytes replaced"]),
        (b"a\xffb", "image/png", "json", b64(b"a\xffb"), ["body: neither JSON nor text, given as base64"]),
        (b"a\xffb", "image/png", "text", "a\ufffdb", ["body: not utf-8 at byte 1, unreadable bytes replaced"]),
        (b"a\xffb", "text/plain", "binary", b64(b"a\xffb"), None),
        (b"\x00\xff", "", "binary", b64(b"\x00\xff"), None),
        (b"NaN", "application/json", "json", "NaN", None),
        (b"", "application/json", "json", "", None),
        (b"{broken", "application/json", "json", "{broken", None),
    ],
)  # fmt: skip
def test_payload_by_type_and_charset(
    server: ToolServer, data: bytes, content_type: str, response_type: str, payload: Any, notes: list[str] | None
) -> None:
    result = get(server, "/bytes", params={"hex": data.hex(), "type": content_type}, response_type=response_type)
    assert result.data["body"] == result.data["data"] == payload
    assert result.data.get("notes") == notes


def test_answer_without_a_body_is_an_empty_text(server: ToolServer) -> None:
    assert get(server, "/status/204").data["data"] == ""


PACKED = b'{"packed": true}'
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        pytest.param("gzip", gzip.compress(PACKED), id="gzip"),
        pytest.param("gzip", gzip.compress(PACKED[:5]) + gzip.compress(PACKED[5:]), id="gzip in two members"),
        pytest.param("deflate", zlib.compress(PACKED), id="deflate"),
        pytest.param("deflate", RAW.compress(PACKED) + RAW.flush(), id="deflate without header"),
    ],
)
@pytest.mark.parametrize(
    "behind",
    [b"", b"\0", b"\0" * 70_000, b"\r\n", b"\x1f\x8c"],
    ids=["nothing", "zero", "zeros", "line", "half-a-head"],
)
def test_packed_answer_is_unpacked_without_what_comes_behind_it(
    server: ToolServer, coding: str, packed: bytes, behind: bytes
) -> None:
    server.routes["/packed"] = lambda seen: Answer(200, packed + behind, {"Content-Encoding": coding})
    assert get(server, "/packed").data["data"] == {"packed": True}


@pytest.mark.parametrize(("coding", "bits"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
@pytest.mark.parametrize("part", [0.5, 0.99])
def test_packed_answer_that_ends_in_the_middle_is_a_parse_error(
    server: ToolServer, coding: str, bits: int, part: float
) -> None:
    packer = zlib.compressobj(wbits=bits)
    packed = packer.compress(b"".join(b"%d,x\n" % number for number in range(9000))) + packer.flush()
    whole_members = gzip.compress(b"id,v\n") if coding == "gzip" else b""
    body = whole_members + packed[: int(len(packed) * part)]
    server.routes["/packed"] = lambda seen: Answer(200, body, {"Content-Encoding": coding})
    result = get(server, "/packed")
    assert (result.kind, result.code) == ("parse", "DecodingError")
    assert f"the body is not valid {coding}: it ends too early" in str(result.message)
    with pytest.raises(ToolError, match=f"DecodingError: the body is not valid {coding}: it ends too early"):
        run_tool("artifact", {"uri": server.url("/packed")})
    cut = get(server, "/packed", max_response_bytes=9)
    assert (cut.succeeded, cut.data["truncated"]) == (True, True)


def test_packed_answer_without_a_body_is_empty(server: ToolServer) -> None:
    assert get(server, "/gzip", method="HEAD").data["data"] == ""


# ── redirects ───────────────────────────────────────────────────────────────────────────────────


def test_credentials_do_not_follow_a_redirect_to_another_host(server: ToolServer) -> None:
    with ToolServer() as other:
        target = other.url("/echo")
        config = {
            "url": server.url("/redirect"),
            "params": {"to": target},
            "headers": {"X-Plain": "1", "X-Api-Key": "k", "Cookie": "c=1", "X-Mine": "m"},
            "auth": {
                "a": {"type": "bearer", "token": "secret"},
                "b": {"type": "header", "header": "X-Sign", "value": "s"},
            },
        }
        result = run_tool("http", config, dialect=Dialect.PYTHON)
        (seen,) = other.requests
    assert result.data["url"] == target
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert server.requests[0].headers["x-sign"] == "s"
    for name in ("authorization", "x-api-key", "cookie", "x-sign"):
        assert name not in seen.headers
    assert (seen.headers["x-plain"], seen.headers["x-mine"]) == ("1", "m")


def test_redirect_on_the_same_host_is_followed_with_the_credentials_unless_switched_off(server: ToolServer) -> None:
    result = get(server, "/redirect?to=/echo", auth={"type": "api_key", "token": "k"})
    assert result.data["data"]["headers"]["x-api-key"] == "k"
    assert get(server, "/redirect?to=/echo", follow_redirects=False).data["status_code"] == 302


@pytest.mark.parametrize(
    ("status", "method", "body"), [(301, "GET", ""), (303, "GET", ""), (307, "POST", "x=1"), (308, "POST", "x=1")]
)
def test_body_follows_where_the_status_says_so(server: ToolServer, status: int, method: str, body: str) -> None:
    result = get(server, f"/redirect?to=/echo&status={status}", method="POST", form={"x": 1})
    assert (result.data["data"]["method"], result.data["data"]["body"]) == (method, body)


def test_redirects_without_an_end_and_to_another_scheme_are_client_errors(server: ToolServer) -> None:
    endless = get(server, "/loop")
    assert (endless.kind, endless.code) == ("client_error", "TooManyRedirects")
    assert len(server.requests) == 11
    scheme = get(server, "/redirect", params={"to": "file:///etc/passwd"})
    assert (scheme.kind, scheme.code) == ("client_error", "UnsupportedProtocol")


def test_redirect_to_what_is_no_address_is_a_client_error(server: ToolServer) -> None:
    for proxy in ({}, {"proxy": server.url("")}):
        result = get(server, "/redirect", params={"to": "mailto:a@b"}, **proxy)
        assert (result.kind, result.code) == ("client_error", "UnsupportedProtocol")
        assert "the answer redirects to an address that cannot be requested: " in str(result.message)


@pytest.mark.parametrize(("length", "message"), [("2", "Too much data"), ("50", "Too little data")])
def test_body_of_another_length_than_its_header_says_is_a_configuration_error(
    server: ToolServer, length: str, message: str
) -> None:
    for proxy in ({}, {"proxy": server.url("")}):
        config = {"url": server.url("/echo"), "method": "POST", "body": "abc", "headers": {"Content-Length": length}}
        with pytest.raises(ConfigurationError, match=f"cannot be sent: {message} for declared Content-Length"):
            run_tool("http", {**config, **proxy})


# ── what is kept between commands: connections only ─────────────────────────────────────────────


async def test_cookies_of_one_command_are_not_sent_by_the_next(server: ToolServer, registry: Registry) -> None:
    context = tool_context(registry=registry)
    found = [await registry.run_tool("http", {"url": server.url("/cookie")}, context) for _ in range(2)]
    assert [one.data["data"]["cookie"] for one in found] == [None, None]


async def test_commands_of_a_worker_share_a_connection(server: ToolServer, registry: Registry) -> None:
    for _ in range(3):
        await registry.run_tool("http", {"url": server.url("/echo")}, tool_context(registry=registry))
    assert len({seen.client_port for seen in server.requests}) == 1


async def test_hundred_requests_at_once(server: ToolServer, registry: Registry) -> None:
    context = tool_context(registry=registry)
    calls = [registry.run_tool("http", {"url": server.url(f"/echo?n={n}")}, context) for n in range(100)]
    results = await asyncio.gather(*calls)
    assert [result.data["data"]["query"]["n"] for result in results] == [[str(number)] for number in range(100)]


# ── TLS and proxies ─────────────────────────────────────────────────────────────────────────────


def test_certificate_nobody_vouches_for_is_refused_and_can_be_trusted() -> None:
    with ToolServer(tls=(PEM, PEM)) as server:
        refused = get(server, "/echo")
        assert (refused.kind, refused.retryable, refused.code) == ("connection", False, "certificate")
        assert "set 'ca_file' to the authority that signed it" in str(refused.message)
        assert get(server, "/echo", ca_file=str(PEM)).succeeded
        assert get(server, "/echo", verify_ssl=False).succeeded


def test_client_certificate_is_shown() -> None:
    with ToolServer(tls=(PEM, PEM), client_ca=PEM) as server:
        assert get(server, "/echo", ca_file=str(PEM)).kind == "connection"
        assert get(server, "/echo", ca_file=str(PEM), client_cert=str(PEM)).succeeded


def test_request_goes_through_the_proxy(server: ToolServer) -> None:
    def proxied(seen: Seen) -> Answer:
        return Answer(200, b'"by proxy"')

    server.routes["/some/page"] = proxied
    result = run_tool("http", {"url": "http://example.invalid/some/page", "proxy": server.url("")})
    assert result.data["data"] == "by proxy"
    assert server.requests[0].headers["host"] == "example.invalid"


def test_proxy_of_the_workers_environment(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["/page"] = lambda seen: Answer(200, b'"by proxy"')
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert run_tool("http", {"url": "http://example.invalid/page"}).data["data"] == "by proxy"
    run_tool("http", {"url": server.url("/echo")})
    assert server.requests[1].headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ca_file": "/no/such.pem"}, "http: 'ca_file': '/no/such.pem' cannot be read: "),
        ({"client_cert": "/no/such.pem"}, "http: 'client_cert': '/no/such.pem' cannot be read: "),
        ({"proxy": "gopher://u:hidden@host"}, "http: 'proxy' 'gopher://host' cannot be used: "),
        ({"proxy": "http://u:hid?den@host:1"}, "http: 'proxy' '...' cannot be used: "),
    ],
)
def test_connection_options_that_cannot_be_used_are_configuration_errors(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_tool("http", {"url": "http://127.0.0.1/", **config})
    assert str(caught.value).startswith(message)


def test_socks_proxy_without_its_package_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigurationError, match=r"^http: 'proxy' 'socks5h://host:1' cannot be used: .* socksio "):
        run_tool("http", {"url": "http://127.0.0.1/", "proxy": "socks5h://u:hidden@host:1"})
    monkeypatch.setenv("ALL_PROXY", "socks5://host:1")
    with pytest.raises(ConfigurationError, match=r"^http: the proxy of the worker's environment cannot be used: "):
        run_tool("http", {"url": "http://example.invalid/"})
