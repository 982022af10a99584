"""A command's trace goes on in what its tools start and talk to, unless the playbook says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nats_client import connected
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.models import Dialect
from noetl_worker.testing import HttpStub, MemoryControlPlane, arun_tool, run_tool
from patience import PATIENCE_S

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = "00-11111111111111111111111111111111-2222222222222222-01"
SHOW = "echo $TRACEPARENT $TRACESTATE"


def traced() -> Mapping[str, str]:
    return {"traceparent": TRACEPARENT, "tracestate": "a=b"}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("shell", {"command": SHOW}),
        ("python", {"code": "import os; print(os.environ.get('TRACEPARENT', ''), os.environ.get('TRACESTATE', ''))"}),
    ],
)
def test_program_has_it_in_its_environment(kind: str, config: dict[str, Any]) -> None:
    def printed(more: dict[str, Any], **context: Any) -> str:
        return str(run_tool(kind, {**config, **more}, **context).stdout).strip()

    assert printed({}, trace_headers=traced) == f"{TRACEPARENT} a=b"
    assert printed({"env": {"TRACEPARENT": OWN}}, trace_headers=traced) == f"{OWN} a=b"
    assert printed({}) == ""


def test_http_request_has_it_as_headers_and_a_playbook_s_own_stays() -> None:
    with HttpStub() as server:
        server.answer("GET /x", json={})
        for headers in ({}, {"Traceparent": OWN}):
            run_tool("http", {"url": f"{server.url}/x", "headers": headers}, trace_headers=traced)
        run_tool("http", {"url": f"{server.url}/x"})
        assert [one.headers.get("traceparent") for one in server.requests] == [TRACEPARENT, OWN, None]
        assert [one.headers.get("tracestate") for one in server.requests] == ["a=b", "a=b", None]


def test_mcp_request_has_it_as_headers() -> None:
    with HttpStub() as server:
        server.answer("GET /health", json={})
        server.answer("GET /mcp/health", json={})
        config = {"endpoint": f"{server.url}/mcp", "method": "health"}
        run_tool("mcp", config, trace_headers=traced)
        assert server.requests
        assert {one.headers.get("traceparent") for one in server.requests} == {TRACEPARENT}


async def test_nats_messages_have_it_as_headers() -> None:
    async with NatsServer() as server:
        client = await connected(server.url)
        await client.jetstream().add_stream(name="GREET", subjects=["greet"])
        heard = await client.subscribe("greet")
        await client.flush()
        config = {"operation": "js_publish", "url": server.url, "subject": "greet", "data": "x"}
        for headers in ({"X-N": "5"}, {"traceparent": OWN}):
            await arun_tool("nats", {**config, "headers": headers}, trace_headers=traced)
        first, second = [await heard.next_msg(timeout=PATIENCE_S) for _ in range(2)]
        await client.close()
        assert first.headers == {"traceparent": TRACEPARENT, "tracestate": "a=b", "X-N": "5"}
        assert (second.headers or {})["traceparent"] == OWN


def test_child_has_it_in_its_start_where_the_plane_takes_it() -> None:
    def started(dialect: Dialect, **context: Any) -> Any:
        plane = MemoryControlPlane()
        run_tool("playbook", {"path": "a/b"}, control_plane=plane, dialect=dialect, **context)
        return plane.executions[1001].get("trace")

    assert started(Dialect.RUST, trace_headers=traced) == {"traceparent": TRACEPARENT, "tracestate": "a=b"}
    assert started(Dialect.RUST) is None
    assert started(Dialect.PYTHON, trace_headers=traced) is None
