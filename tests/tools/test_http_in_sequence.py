"""Kind `http` inside a task sequence, the way the fixtures page and retry, through the registry."""

from __future__ import annotations

from typing import Any

import pytest

from closed_port import closed_port
from noetl_worker.models import ToolResult, ToolStatus
from noetl_worker.testing import run_tool

from .http_server import ITEMS, ToolServer

RETRY = {
    "when": "{{ output.status == 'error' and output.error.retryable }}",
    "then": {"do": "retry", "attempts": 5, "backoff": "fixed", "delay": 0.01},
}
FAIL = {"when": "{{ output.status == 'error' }}", "then": {"do": "fail"}}


def sequence(tasks: list[dict[str, Any]], **context: Any) -> ToolResult:
    return run_tool("task_sequence", {"tasks": tasks}, **context)


def fetch(url: str, *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "fetch", "kind": "http", "url": url, "spec": {"policy": {"rules": [*rules]}}, **fields}


COLLECT = """
page = response["data"]
result = {"items": (found or []) + page["data"], "page": page["paging"]["page"] + 1, "more": page["paging"]["hasMore"]}
"""


def test_pages_by_a_jump_with_a_page_that_fails_once(server: ToolServer) -> None:
    params = {"page": "{{ collect.page | default(1) }}", "pageSize": 10, "fail_on": 2}
    collect = {
        "name": "collect",
        "kind": "python",
        "input": {"response": "{{ fetch }}", "found": "{{ collect['items'] }}"},
        "code": COLLECT,
        "spec": {"policy": {"rules": [{"when": "{{ output.data.more }}", "then": {"do": "jump", "to": "fetch"}}]}},
    }
    result = sequence([fetch(server.url("/pages"), RETRY, FAIL, params=params), collect])
    assert result.status is ToolStatus.SUCCESS, result.error
    assert [item["id"] for item in result.data["results"]["collect"]["items"]] == list(range(1, ITEMS + 1))
    assert len(server.requests) == 5


@pytest.mark.parametrize(("path", "requests", "status"), [
    ("/flaky?fail=2&status=429", 3, ToolStatus.SUCCESS),
    ("/flaky?fail=2&status=500", 3, ToolStatus.SUCCESS),
    ("/flaky?fail=2&status=401", 1, ToolStatus.ERROR),
    ("/flaky?fail=2&status=404", 1, ToolStatus.ERROR),
])  # fmt: skip
def test_rules_see_whether_a_failure_may_pass(server: ToolServer, path: str, requests: int, status: ToolStatus) -> None:
    result = sequence([fetch(server.url(path), RETRY, FAIL)])
    assert (len(server.requests), result.status) == (requests, status)


def test_rules_see_the_kind_of_a_failed_connection() -> None:
    rule = {"when": "{{ output.error.kind == 'connection' }}", "then": {"do": "continue"}}
    after = {"name": "b", "kind": "noop", "result": "reached"}
    assert sequence([fetch(f"http://127.0.0.1:{closed_port()}/", rule), after]).data["results"]["b"] == "reached"


def test_headers_and_retry_are_rendered_with_the_names_of_the_sequence(server: ToolServer) -> None:
    first = {"name": "first", "kind": "noop", "result": {"key": "k-1", "limit": 2}}
    retry = {"retry_when": "{{ attempt < first.limit }}", "max_attempts": 9, "initial_delay": 0.01, "jitter": False}
    headers = {"X-Key": "{{ first.key }}", "Authorization": "Bearer {{ token(alias) }}"}
    task = {"name": "ask", "kind": "http", "url": server.url("/echo"), "headers": headers, "retry": retry}
    credentials = {"a": {"type": "bearer", "token": "t"}}
    result = sequence([first, task], credentials=credentials, variables={"alias": "a"})
    sent = result.data["results"]["ask"]["data"]["headers"]
    assert (sent["x-key"], sent["authorization"]) == ("k-1", "Bearer t")
    assert len(server.requests) == 2
