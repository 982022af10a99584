"""Kind `http`: what is sent, what comes back, how failures are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.models.tool_result import ToolFailure
from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.http.http import HttpTool

Answer = Callable[[httpx.Request], httpx.Response]


def call(config: dict[str, Any], answer: Answer | None = None, **context: Any) -> ToolResult:
    def default(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=echo(request))

    tool = HttpTool(httpx.MockTransport(answer or default))
    return run_tool(tool, {"url": "http://host/path", **config}, **context)


def echo(request: httpx.Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": str(request.url),
        "headers": dict(request.headers),
        "body": request.content.decode(),
    }


def sent(config: dict[str, Any], **context: Any) -> dict[str, Any]:
    data: dict[str, Any] = call(config, **context).data["data"]
    return data


@pytest.mark.parametrize("status", [200, 500])
def test_data_has_the_fields_of_the_planes_own_worker(status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"status": "ok"}, headers={"X-Two": "2"})

    began_s = time.monotonic()
    rust, python = (call({}, answer, dialect=plane).data for plane in (Dialect.RUST, Dialect.PYTHON))
    took_s = time.monotonic() - began_s
    assert rust.keys() == {"status_code", "headers", "body", "data"}
    assert python.keys() == {"status_code", "headers", "data", "url", "elapsed"}
    assert rust["body"] == rust["data"] == python["data"] == {"status": "ok"}
    assert (rust["status_code"], rust["headers"]["x-two"]) == (status, "2")
    assert python["url"] == "http://host/path"
    assert 0 <= python["elapsed"] <= took_s


@pytest.mark.parametrize("method", ["post", "POST", " Post "])
def test_method_in_any_spelling(method: str) -> None:
    assert sent({"method": method})["method"] == "POST"


def test_endpoint_is_the_url_and_its_query_is_kept() -> None:
    result = run_tool(
        HttpTool(httpx.MockTransport(lambda request: httpx.Response(200, json=str(request.url)))),
        {"endpoint": "http://host/a?x=1", "params": {"page": 2, "skip": None, "flag": True, "o": {"a": 1}}},
    )
    assert httpx.URL(result.data["data"]).params.multi_items() == [
        ("x", "1"), ("page", "2"), ("flag", "true"), ("o", '{"a":1}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "values", "empty"),
    [(Dialect.RUST, ['[1,"b c"]'], ["[]"]), (Dialect.PYTHON, ["1", "b c"], [])],
)
def test_list_is_one_json_text_on_the_rust_plane(dialect: Dialect, values: list[str], empty: list[str]) -> None:
    """Seen live (http-list-params); the Python plane's worker leaves a list to httpx, which repeats the parameter."""
    given = {"ids": [1, "b c"], "none": []}
    address = sent({"params": given}, dialect=dialect)["url"]
    form = sent({"method": "POST", "form": given}, dialect=dialect)["body"]
    for found in (httpx.URL(address).params, httpx.QueryParams(form)):
        assert (found.get_list("ids"), found.get_list("none")) == (values, empty)


def test_headers_of_any_scalar() -> None:
    headers = sent({"headers": {"X-Number": 5, "X-None": None, "X-Flag": False}})["headers"]
    assert (headers["x-number"], headers["x-flag"]) == ("5", "false")
    assert "x-none" not in headers


@pytest.mark.parametrize(
    ("fields", "host", "length"),
    [
        ({"method": "GET"}, "host", None),
        ({"method": "DELETE"}, "host", None),
        ({"method": "POST"}, "host", "0"),
        ({"method": "GET", "body": "ab"}, "host", "2"),
        ({"method": "PUT", "body": "ab", "url": "http://here:8443/"}, "here:8443", "2"),
        ({"method": "POST", "headers": {"HOST": "there"}, "url": "http://[::1]/"}, "there", "0"),
        ({"method": "POST", "body": "ab", "headers": {"content-LENGTH": 2}, "url": "http://[::1]/"}, "[::1]", "2"),
    ],
)
def test_request_says_its_host_and_how_long_its_body_is(fields: dict[str, Any], host: str, length: str | None) -> None:
    headers = sent(fields)["headers"]
    assert (headers["host"], headers.get("content-length")) == (host, length)


def test_data_of_a_get_is_its_query() -> None:
    assert sent({"data": {"q": "a b"}})["url"] == "http://host/path?q=a+b"
    assert sent({"method": "POST", "data": {"query": {"q": 1}}})["url"] == "http://host/path?q=1"


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "client_error", False),
        (401, "auth", False),
        (403, "auth", False),
        (404, "not_found", False),
        (408, "timeout", True),
        (429, "rate_limit", True),
        (500, "server_error", True),
        (503, "server_error", True),
    ],
)
def test_other_statuses_are_failures_with_the_data_kept(status: int, kind: str, retryable: bool) -> None:
    result = call({}, lambda request: httpx.Response(status, json={"why": 1}))
    assert result.status is ToolStatus.ERROR
    assert result.error == ToolFailure(f"HTTP {status} response", kind, retryable, str(status))
    assert result.data["data"] == {"why": 1}
    assert result.exit_code == 1
