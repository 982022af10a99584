"""The whole tool, with what noetl_worker.testing gives: no worker, no NATS, no server, no network."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from noetl_worker_webhook import WebhookTool

from noetl_worker.testing import HttpStub, Received, ToolCall, call_tool

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
CREDENTIALS = {"hooks": {"type": "custom", "secret": SECRET}}


def send(url: str, *, context: dict[str, Any] | None = None, **config: Any) -> ToolCall:
    whole = {"url": url, "event": "order.created", "data": {"id": "{{ order }}"}, **config}
    return call_tool(WebhookTool(), whole, variables={"order": 17}, credentials=CREDENTIALS, **(context or {}))


def send_to_stub(*, status: int = 200, text: str = "", **config: Any) -> tuple[ToolCall, Received]:
    with HttpStub() as server:
        server.answer("POST /hooks", status=status, text=text)
        call = send(f"{server.url}/hooks", **config)
    (request,) = server.requests
    return call, request


def test_event_arrives_with_its_type_and_rendered_data() -> None:
    call, request = send_to_stub(text="thanks")
    assert call.data == {"id": request.headers["webhook-id"], "status_code": 200, "signed": False, "answer": "thanks"}
    assert (request.json["type"], request.json["data"]) == ("order.created", {"id": 17})
    assert "webhook-signature" not in request.headers


def test_signature_is_what_the_specification_says() -> None:
    call, request = send_to_stub(auth="hooks")
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert call.data["signed"] is True


def test_every_try_of_a_command_has_the_same_id_and_other_events_have_others() -> None:
    with HttpStub() as server:
        server.answer("POST /hooks")
        for config in ({}, {}, {"event": "order.paid"}, {"context": {"command_id": "42:step:2"}}):
            send(f"{server.url}/hooks", **config)
    first, again, other, elsewhere = (request.headers["webhook-id"] for request in server.requests)
    assert first == again
    assert len({first, other, elsewhere}) == 3


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (302, "client_error", False),
        (400, "client_error", False),
        (401, "auth", False),
        (410, "not_found", False),
        (429, "rate_limit", True),
        (503, "server_error", True),
    ],
)
def test_answer_that_is_no_success_is_a_failure_with_its_kind(status: int, kind: str, retryable: bool) -> None:
    call, _ = send_to_stub(status=status, text="why")
    assert (call.kind, call.retryable, call.code) == (kind, retryable, str(status))
    assert call.data["answer"] == "why"


def test_receiver_that_is_away_may_be_tried_again() -> None:
    with HttpStub() as server:
        url = f"{server.url}/hooks/a-path-that-is-secret"
    call = send(url)
    assert (call.kind, call.retryable) == ("connection", True)
    assert "a-path-that-is-secret" not in str(call.message)


def test_receiver_that_hangs_is_a_timeout() -> None:
    with HttpStub() as server:
        server.answer("POST /hooks", delay_s=30)
        call = send(f"{server.url}/hooks", context={"timeout_s": 0.2})
    assert call.kind == "timeout"
    assert call.data["id"].startswith("msg_")


@pytest.mark.parametrize("auth", ["hooks", {"secret": SECRET}])
@pytest.mark.parametrize("status", [200, 401])
def test_secret_is_shown_nowhere(auth: Any, status: int) -> None:
    call, request = send_to_stub(auth=auth, status=status)
    call.assert_no_secrets()
    assert SECRET.encode() not in request.body


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"url": "ftp://x"}, "webhook: field 'url' must start with http:// or https://, not 'ftp://x'"),
        ({"event": None}, "webhook: field 'event' (or type) is missing"),
        ({"headers": ["a"]}, "webhook: field 'headers' must be an object, not list"),
        ({"auth": {"token": "x"}}, 'webhook: the credential has no \'secret\'; register it as {"secret": "whsec_..."}'),
        ({"auth": {"secret": "whsec_%"}}, "webhook: a secret that starts with whsec_ must go on in base64"),
        ({"auth": "hook"}, "credential 'hook' is not known; known: ['hooks']. Give it as credentials={'hook': {...}}"),
    ],
)
def test_config_that_cannot_work_says_why(config: dict[str, Any], message: str) -> None:
    url = config.pop("url", "http://127.0.0.1:9")
    assert send(url, **config).message == message


def test_unknown_field_is_reported_with_the_nearest_name() -> None:
    call, _ = send_to_stub(haeders={})
    assert call.warnings == ("webhook: unknown field 'haeders' is ignored; did you mean 'headers'?",)
