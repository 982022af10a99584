"""`call_tool` and `HttpStub`: what an integrator asserts with."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import pytest

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.testing import HttpStub, MemoryControlPlane, acall_tool, call_tool, tool_context
from noetl_worker.tools.contract import ToolContext

SECRET = "hunter2-and-more"


@dataclass(frozen=True, slots=True)
class LeakConfig:
    auth: str
    how: str = "not"


class LeakTool:
    """Shows its secret in the way it is told to."""

    kind: ClassVar[str] = "leak"
    config_model: ClassVar[type] = LeakConfig

    async def run(self, config: LeakConfig, context: ToolContext) -> ToolResult:
        secret = str((await context.secrets.credential(config.auth))["password"])
        context.secrets.keep("made-by-the-tool")
        basic = base64.b64encode(f"user:{secret}".encode()).decode()
        if config.how == "log":
            context.logger.info("connecting", url=f"postgresql://u:{secret}@h/d")
        elif config.how == "progress":
            context.worker.report_progress({"with": secret})
        elif config.how == "child":
            await context.worker.control_plane.execute_playbook({"payload": {"key": secret}})
        elif config.how == "stored":
            await context.worker.control_plane.put_result("x", secret.encode(), source_step="s")
        elif config.how == "variable":
            await context.worker.control_plane.set_vars({"v": [secret]})
        elif config.how == "raised":
            raise ToolError("no") from ValueError(f"refused {secret}")
        elif config.how == "own":
            return ToolResult.success({"got": "made-by-the-tool"})
        elif config.how == "failure":
            return ToolResult.failure(f"wrong password {secret}", kind="auth", code="28P01")
        return ToolResult.success({"authorization": f"Basic {basic}"} if config.how == "base64" else {"user": "u"})


def leak(how: str) -> Any:
    return call_tool(
        LeakTool(), {"auth": "db", "how": how}, credentials={"db": {"type": "basic", "user": "u", "password": SECRET}}
    )


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ("log", "log"),
        ("progress", "progress"),
        ("child", "child executions"),
        ("stored", "stored results"),
        ("variable", "variables"),
        ("raised", "error"),
        ("failure", "result"),
        ("base64", "result"),
        ("own", "result"),
    ],
)
def test_secret_is_found_wherever_a_tool_shows_it(how: str, place: str) -> None:
    call = leak(how)
    with pytest.raises(AssertionError, match=rf"^the {place} shows the secret "):
        call.assert_no_secrets()


def test_tool_that_keeps_its_secret_passes() -> None:
    call = leak("not")
    call.assert_no_secrets()
    assert (call.succeeded, call.data, call.kind, call.message, call.code, call.retryable) == (
        True, {"user": "u"}, None, None, None, False,
    )  # fmt: skip


def test_what_is_sent_has_no_secret_in_any_case() -> None:
    for how in ("failure", "base64", "own"):
        sent = leak(how).sent
        assert SECRET not in str(sent)
        assert "[REDACTED]" in str(sent)


def test_failure_reads_the_same_returned_or_raised() -> None:
    returned, raised = leak("failure"), leak("raised")
    assert (returned.kind, returned.code, returned.succeeded, returned.raised) == ("auth", "28P01", False, None)
    assert (raised.kind, raised.code, raised.succeeded, raised.result) == ("unknown", None, False, None)
    assert raised.message == "no"
    assert raised.sent["error"] == "no"


def test_failures_before_the_run_and_warnings_are_there_too() -> None:
    assert isinstance(call_tool(LeakTool(), {}).raised, ConfigurationError)
    unknown = call_tool(LeakTool(), {"auth": "db"}, credentials={"other": {}})
    assert isinstance(unknown.raised, CredentialError)
    assert "credential 'db' is not known; known: ['other']" in str(unknown.message)
    assert "Give it as credentials={'db': {...}}" in str(unknown.message)
    assert call_tool("noop", {"mesage": "x"}).warnings == (
        "noop: unknown field 'mesage' is ignored; did you mean 'message'?",
    )


def test_log_progress_and_control_plane_are_recorded_or_the_callers_own() -> None:
    call = leak("log")
    assert [(level, event) for level, event, _ in call.log] == [("info", "connecting")]
    assert leak("progress").progress == ({"with": SECRET},)
    plane = MemoryControlPlane()
    own = call_tool("playbook", {"path": "child"}, control_plane=plane)
    assert own.control_plane is plane
    assert [body["path"] for body in plane.executions.values()] == ["child"]


async def test_inside_a_running_loop() -> None:
    assert (await acall_tool("noop", {"result": 5})).data == 5


def test_argument_that_is_none_names_the_ones_there_are() -> None:
    with pytest.raises(TypeError, match=r"^'timeout' is no field of ToolContext .*; fields: .*timeout_s"):
        tool_context(timeout=5)


def test_metadata_is_at_hand_for_templates_as_in_the_worker() -> None:
    assert call_tool("noop", {"result": "{{ execution_id }}/{{ step }}"}, execution_id=7, step="load").data == "7/load"


# ── HttpStub ────────────────────────────────────────────────────────────────────────────────────


def test_answers_come_in_the_order_they_were_said() -> None:
    with HttpStub() as server, httpx.Client() as client:
        server.answer("GET /x", status=503, times=2, headers={"Retry-After": "1"})
        server.answer("GET /x", json={"ok": True})
        got = [client.get(f"{server.url}/x?a=1&b=") for _ in range(4)]
    assert [one.status_code for one in got] == [503, 503, 200, 200]
    assert (got[0].headers["retry-after"], got[2].json()) == ("1", {"ok": True})
    assert [dict(one.query) for one in server.requests] == [{"a": "1", "b": ""}] * 4


def test_requests_are_remembered_whole() -> None:
    with HttpStub() as server:
        server.answer("POST /in", text="thanks", status=202)
        with httpx.Client() as client:
            answer = client.post(f"{server.url}/in", json={"a": [1]}, headers={"X-Id": "7"})
    (request,) = server.requests
    assert (answer.status_code, answer.text) == (202, "thanks")
    assert (request.method, request.path, request.json, request.headers["x-id"]) == ("POST", "/in", {"a": [1]}, "7")


def test_request_without_an_answer_gets_404_and_the_ones_there_are() -> None:
    with HttpStub() as server, httpx.Client() as client:
        server.answer("GET /x", times=1)
        client.get(f"{server.url}/x")
        answer = client.get(f"{server.url}/x")
    assert answer.status_code == 404
    advice = "set one with answer('GET /x'). Answers set: GET /x"
    assert answer.text == f"HttpStub has no answer left to GET /x; {advice}\n"


def test_late_answer_makes_the_tools_timeout_strike_and_the_stub_does_not_wait_for_it() -> None:
    with HttpStub() as server:
        server.answer("GET /slow", delay_s=1000)
        call = call_tool("http", {"url": f"{server.url}/slow", "timeout": 0.2})
    assert call.kind == "timeout"


def test_after_the_block_the_connection_is_refused() -> None:
    with HttpStub() as server:
        address = server.url
    call = call_tool("http", {"url": address})
    assert (call.kind, call.retryable) == ("connection", True)


@pytest.mark.parametrize("request_line", ["/x", "FETCH /x", "GET x", "get /x"])
def test_request_line_of_another_form_is_an_error(request_line: str) -> None:
    with pytest.raises(ValueError, match="write a method and a path"), HttpStub() as server:
        server.answer(request_line)
