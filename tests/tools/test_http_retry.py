"""Kind `http`: tries after failures, pages after successes, in every form that playbooks have."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from closed_port import closed_port
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import ToolCall, call_tool, run_tool
from noetl_worker.tools.http.answer import retry_after_s
from noetl_worker.tools.kinds.http import retry as http_retry
from noetl_worker.tools.kinds.http.retry import Pages, RetryRule

from .http_server import ITEMS, ToolServer, as_json

QUICK = {"initial_delay": 0.01, "jitter": False}


def get(server: ToolServer, path: str, retry: Any, **more: Any) -> ToolCall:
    return call_tool("http", {"url": server.url(path), "retry": retry}, **more)


# ── the forms ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("retry", "rules"),
    [
        (None, ()),
        (False, ()),
        (True, (RetryRule(),)),
        (5, (RetryRule(attempts=5),)),
        ("5", (RetryRule(attempts=5),)),
        ({"max_attempts": 2, "initial_delay": 0.5, "backoff_multiplier": 3, "max_delay": 9, "jitter": False},
         (RetryRule(attempts=2, delay_s=0.5, multiplier=3.0, max_delay_s=9.0, jitter=False),)),
        ({"max_retries": 2, "initial_delay_ms": 250, "max_delay_ms": 1000},
         (RetryRule(attempts=3, delay_s=0.25, max_delay_s=1.0),)),
        ({"attempts": 4, "backoff": "linear", "delay": "500ms"},
         (RetryRule(attempts=4, backoff="linear", delay_s=0.5),)),
        ({"retry_on": ["timeout", 429]}, (RetryRule(statuses=frozenset({429}), kinds=frozenset({"timeout"})),)),
        ({"retry_on_status": ["5xx"]}, (RetryRule(statuses=frozenset(range(500, 600))),)),
        ({"retry_when": "{{ a }}", "stop_when": "{{ b }}"}, (RetryRule(when="{{ a }}", stop_when="{{ b }}"),)),
        ({"on_error": {"when": "{{ a }}", "max_attempts": 2}}, (RetryRule(when="{{ a }}", attempts=2),)),
        ([{"when": "{{ a }}", "then": {"max_attempts": 2}}, {"when": "{{ b }}", "then": {}}],
         (RetryRule(when="{{ a }}", attempts=2), RetryRule(when="{{ b }}"))),
    ],
)  # fmt: skip
def test_every_form_of_tries(retry: Any, rules: tuple[RetryRule, ...]) -> None:
    assert http_retry.parse(retry) == http_retry.RetryPlan(rules)


NEXT = {"params": {"page": 2}}


@pytest.mark.parametrize(
    ("retry", "pages"),
    [
        ([{"when": "{{ m }}", "then": {"next_call": NEXT, "collect": {"path": "data", "strategy": "append"}}}],
         Pages("{{ m }}", NEXT, path="data")),
        ({"on_success": {"while": "{{ m }}", "max_attempts": 10, "next_call": NEXT,
                         "collect": {"strategy": "merge", "path": "d", "into": "all"}}},
         Pages("{{ m }}", NEXT, path="d", strategy="merge", into="all", limit=10)),
        ({"on_success": {"while": "{{ m }}", "max_iterations": 3, "next_call": NEXT, "collect": "data"}},
         Pages("{{ m }}", NEXT, path="data", limit=3)),
    ],
)  # fmt: skip
def test_every_form_of_pages(retry: Any, pages: Pages) -> None:
    assert http_retry.parse(retry).pages == pages


NO_TEMPLATE = "is no template; write it as {{ ... }}"


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        (0, "retry must be a whole number from 1, not 0"),
        ("often", "retry must be a whole number from 1, not 'often'"),
        ({"max_atempts": 3}, "retry: unknown key 'max_atempts'; did you mean 'max_attempts'?"),
        ({"max_attempts": True}, "retry.max_attempts must be a whole number from 1, not True"),
        (
            {"initial_delay": "soon"},
            "retry.initial_delay='soon' is not a time: give seconds above 0, or a text like 30s or 2m",
        ),
        ({"backoff": "wild"}, "retry.backoff 'wild' is none of none, fixed, linear, exponential"),
        (
            {"retry_on": ["rain"]},
            "retry.retry_on: 'rain' is neither an HTTP status nor one of auth, client_error, connection, error, "
            "not_found, parse, rate_limit, server_error, timeout",
        ),
        (["x"], "retry[0] must be an object, not str"),
        ([{"when": "{{ a }}"}], "retry[0] needs 'when' and 'then'"),
        (
            [{"when": True, "then": {"next_call": NEXT}}] * 2,
            "retry[1]: an earlier rule already has 'next_call' or 'collect'; keep one of the two rules",
        ),
        (
            {"on_success": {"next_call": NEXT}},
            "retry.on_success needs 'while': a condition that is true if there is another page",
        ),
        (
            {"on_success": {"while": True, "next_call": {}}},
            "retry.on_success.next_call is empty, and would request the same page again: name the field that changes",
        ),
        (
            {"on_success": {"while": True, "next_call": NEXT, "collect": {"strategy": "zip"}}},
            "retry.on_success.collect.strategy 'zip' is none of append, replace, merge",
        ),
        ({"retry_when": "error.status == 500"}, f"retry: 'retry_when: error.status == 500' {NO_TEMPLATE}"),
        ([{"when": "error.status == 500", "then": {}}], f"retry[0].then: 'when: error.status == 500' {NO_TEMPLATE}"),
        ({"on_error": {"stop_when": "attempt > 2"}}, f"retry.on_error: 'stop_when: attempt > 2' {NO_TEMPLATE}"),
        (
            {"on_success": {"while": "response.next", "next_call": NEXT}},
            f"retry.on_success: 'while: response.next' {NO_TEMPLATE}",
        ),
    ],
)
def test_retry_that_cannot_be_read_says_where(retry: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        http_retry.parse(retry)
    assert str(caught.value) == f"http: {message}"


def test_delays_grow_to_their_limit_and_are_spread() -> None:
    rule = RetryRule(delay_s=1.0, max_delay_s=5.0, jitter=False)
    assert [http_retry.delay_s(rule, tries) for tries in (1, 2, 3, 4)] == [1, 2, 4, 5]
    linear = RetryRule(delay_s=1.0, backoff="linear", jitter=False)
    assert [http_retry.delay_s(linear, tries) for tries in (1, 2, 3)] == [1, 2, 3]
    assert http_retry.delay_s(RetryRule(backoff="none"), 3) == 0
    spread = {http_retry.delay_s(RetryRule(), 1) for _ in range(50)}
    assert len(spread) > 10
    assert all(0.5 <= delay <= 1.5 for delay in spread)


# ── tries ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("fails", "message"), [(2, None), (9, "HTTP 503 response")], ids=["passes", "does-not"])
def test_failure_that_may_pass_is_tried_again_until_the_tries_are_over(
    server: ToolServer, fails: int, message: str | None
) -> None:
    result = get(server, f"/flaky?fail={fails}", {"max_attempts": 3, **QUICK})
    assert (result.message, result.data["attempts"]) == (message, 3)
    assert len(server.requests) == 3


def test_failure_that_will_not_pass_is_not_tried_again(server: ToolServer) -> None:
    for status in (400, 401, 404):
        assert "attempts" not in get(server, f"/status/{status}", {"max_attempts": 3, **QUICK}).data
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("retry", "requests"),
    [
        ({"retry_on_status": [418], "max_attempts": 2}, 2),
        ({"retry_on": ["4xx"], "max_attempts": 2}, 2),
        ({"retry_on": ["client_error"], "max_attempts": 2}, 2),
        ({"retry_on": ["timeout"], "max_attempts": 2}, 1),
        ({"retry_when": "{{ status_code == 418 }}", "max_attempts": 2}, 2),
        ({"retry_when": "{{ error.status >= 400 }}", "stop_when": "{{ attempt == 2 }}", "max_attempts": 9}, 2),
        ([{"when": "{{ error.status >= 500 }}", "then": {"max_attempts": 9}},
          {"when": "{{ error.status == 418 }}", "then": {"max_attempts": 2}}], 2),
        ([{"when": "{{ response.asked_for == 418 and not success }}", "then": {"max_attempts": 3}}], 3),
        ([{"when": "{{ result.status == 'error' and error.kind == 'client_error' }}", "then": {"max_attempts": 3}}], 3),
    ],
)  # fmt: skip
def test_rules_decide_on_the_outcome(server: ToolServer, retry: Any, requests: int) -> None:
    for rule in retry if isinstance(retry, list) else [retry]:
        rule.get("then", rule).update(QUICK)
    get(server, "/status/418", retry)
    assert len(server.requests) == requests


def test_success_can_be_polled_until_it_says_so(server: ToolServer) -> None:
    server.routes["/job"] = lambda seen: as_json({"state": "done" if server.count("job") == 3 else "running"})
    result = get(server, "/job", {"retry_when": "{{ response.state == 'running' }}", "max_attempts": 9, **QUICK})
    assert (result.data["data"], result.data["attempts"]) == ({"state": "done"}, 3)


def test_connection_that_is_refused_is_tried_again_and_then_raised() -> None:
    config = {"url": f"http://127.0.0.1:{closed_port()}/", "retry": {"max_attempts": 3, **QUICK}}
    result = call_tool("http", config)
    assert isinstance(result.raised, ToolError)
    assert result.kind == "connection"
    assert [event for _, event, _ in result.log] == ["http_retry", "http_retry"]


def test_retry_after_is_waited_for(server: ToolServer) -> None:
    began = time.monotonic()
    result = get(server, "/flaky?fail=1&status=429&retry_after=1", {"max_attempts": 2, **QUICK})
    assert result.succeeded
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
        ("9" * 400, 1e9),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 +99999999999999", None),
    ],
)
def test_retry_after_as_a_number_and_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_s({"headers": {"retry-after": value}}) == seconds


def test_retry_after_in_the_future() -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    found = retry_after_s({"headers": {"retry-after": date}})
    assert found is not None
    assert 85 <= found <= 90


def test_no_wait_beyond_the_time_that_is_left(server: ToolServer) -> None:
    """Both are longer than this test lasts."""
    path = "/flaky?fail=1&status=429&retry_after=6000"
    result = get(server, path, {"max_attempts": 2, **QUICK}, timeout_s=2000.0)
    assert result.kind == "rate_limit"
    assert result.data["headers"]["retry-after"] == "6000"


def test_date_that_no_clock_has_loses_no_retry(server: ToolServer) -> None:
    path = "/flaky?fail=1&status=429&retry_after=Fri,%2031%20Dec%2099999999999%2023:59:59%20GMT"
    assert get(server, path, {"max_attempts": 2, **QUICK}).succeeded


def test_timeout_covers_all_tries(server: ToolServer) -> None:
    config = {
        "url": server.url("/silent"),
        "attempt_timeout": 0.1,
        "timeout": 1.5,
        "retry": {"max_attempts": 1_000_000, **QUICK},
    }
    result = run_tool("http", config)
    assert result.status is ToolStatus.TIMEOUT
    assert 2 <= len(server.requests) <= 1.5 / 0.1


@pytest.mark.parametrize("config", [{"timeout": {"read": 0.2, "total": 9}}, {"spec": {"timeout": {"read": "200ms"}}}])
def test_parts_of_a_timeout_are_told_apart(server: ToolServer, config: dict[str, Any]) -> None:
    result = call_tool("http", {"url": server.url("/silent"), **config})
    assert result.message == "http: nothing came for 0.2 seconds (read_timeout)"


# ── pages ───────────────────────────────────────────────────────────────────────────────────────

BY_PAGE = {
    "while": "{{ response.paging.hasMore == true }}",
    "next_call": {"params": {"page": "{{ (response.paging.page | int) + 1 }}"}},
    "collect": {"strategy": "append", "path": "data", "into": "pages"},
}
IDS = list(range(1, ITEMS + 1))


def ids(result: ToolCall) -> list[int]:
    return [one["id"] for one in result.data["data"]]


def test_pages_are_collected(server: ToolServer) -> None:
    result = get(server, "/pages?page=1&pageSize=10", {"on_success": BY_PAGE})
    assert result.succeeded
    assert ids(result) == IDS
    assert result.data["body"] == result.data["data"]
    assert (result.data["pages"], result.data["status_code"]) == (4, 200)
    assert [seen.param("page") for seen in server.requests] == ["1", "2", "3", "4"]


def test_pages_and_tries_together(server: ToolServer) -> None:
    on_error = {"when": "{{ error.status in [500, 502, 503] }}", "max_attempts": 3, **QUICK}
    result = get(server, "/pages?pageSize=10&fail_on=2", {"on_error": on_error, "on_success": BY_PAGE})
    assert ids(result) == IDS
    assert (result.data["pages"], result.data["attempts"]) == (4, 5)


BY_CURSOR = {"next_call": {"params": {"cursor": "{{ page.next_cursor }}"}}, "collect": {"path": "events"}}


@pytest.mark.parametrize(
    "retry",
    [
        [{"when": "{{ response.next_cursor is not none }}", "then": BY_CURSOR}],
        {"on_success": {"while": "{{ response.next_cursor }}", **BY_CURSOR}},
    ],
    ids=["in-the-list-form", "while-the-condition-gives-a-value"],
)
def test_pages_by_cursor(server: ToolServer, retry: Any) -> None:
    assert ids(get(server, "/cursor?limit=20", retry)) == IDS


@pytest.mark.parametrize(("reason", "requests"), [("busy", 2), ({"code": 1}, 2), ([], 1), (None, 1), ("off", 1)])
def test_a_value_is_a_reason_to_try_again(server: ToolServer, reason: Any, requests: int) -> None:
    server.routes["/some"] = lambda seen: as_json({"err": reason})
    get(server, "/some", {"retry_when": "{{ response.err }}", "max_attempts": 2, **QUICK})
    assert len(server.requests) == requests


def test_pages_by_link(server: ToolServer) -> None:
    server.routes["/first"] = lambda seen: as_json({"items": [1, 2], "next": "/second?token=t"})
    server.routes["/second"] = lambda seen: as_json({"items": [3], "next": None})
    pages = {"while": "{{ response.next != none }}", "next_call": {"url": "{{ response.next }}"}, "collect": "items"}
    config = {"url": server.url("/first"), "params": {"size": 2}, "retry": {"on_success": pages}}
    result = run_tool("http", config)
    assert result.data["data"] == [1, 2, 3]
    assert server.requests[1].query == {"token": ["t"]}


@pytest.mark.parametrize(
    ("strategy", "gathered"), [("append", [{"a": 1}, {"b": 2}]), ("replace", {"b": 2}), ("merge", {"a": 1, "b": 2})]
)
def test_strategies(server: ToolServer, strategy: str, gathered: Any) -> None:
    server.routes["/some"] = lambda seen: as_json({"part": {"b": 2} if seen.param("n") else {"a": 1}})
    pages = {
        "while": "{{ _retry.index < 2 }}",
        "next_call": {"params": {"n": 1}},
        "collect": {"path": "part", "strategy": strategy},
    }
    assert get(server, "/some", {"on_success": pages}).data["data"] == gathered


def test_pages_stop_at_their_limit_and_say_so(server: ToolServer) -> None:
    result = get(server, "/pages?pageSize=10", {"on_success": {**BY_PAGE, "max_attempts": 2}})
    assert ids(result) == IDS[:20]
    assert result.data["truncated"] is True
    assert result.data["notes"] == ["stopped after 2 pages although there are more"]


def test_page_that_fails_is_the_result(server: ToolServer) -> None:
    result = get(server, "/pages?pageSize=10&fail_on=2", {"on_success": BY_PAGE})
    assert (result.message, result.data["pages"]) == ("HTTP 500 response", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"next_call": {"params": {"page": 1}}},
            "page 3 repeats an earlier request: let 'next_call' ask for another page",
        ),
        ({"collect": "items"}, "page 1: the answer has no 'items' to collect; correct 'path'"),
        ({"collect": "data.²"}, "page 1: the answer has no 'data.²' to collect; correct 'path'"),
        (
            {"collect": {"path": "data", "strategy": "merge"}},
            "page 1: strategy merge collects objects, but data is no object; use append",
        ),
    ],
)
def test_pages_that_cannot_be_collected_say_why(server: ToolServer, change: dict[str, Any], message: str) -> None:
    result = get(server, "/pages", {"on_success": {**BY_PAGE, **change}})
    assert (result.message, result.kind) == (f"http: {message}", "parse")


def test_pages_together_are_bounded(server: ToolServer) -> None:
    config = {"url": server.url("/pages"), "retry": {"on_success": BY_PAGE}, "max_response_bytes": 300}
    result = call_tool("http", config)
    assert result.message == "http: pages 1 to 2 have over 300 bytes: raise 'max_response_bytes'"


def test_field_that_no_request_has_is_refused_in_next_call(server: ToolServer) -> None:
    result = get(server, "/pages", {"on_success": {**BY_PAGE, "next_call": {"query": {}}}})
    assert isinstance(result.raised, ConfigurationError)
    assert "next_call: unknown key 'query'; known: body, data, endpoint, form" in str(result.raised)
