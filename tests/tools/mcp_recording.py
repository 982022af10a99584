"""Exchanges with the reference MCP server (package `mcp` 2.3.0), recorded once and replayed by the tests.

    python -m tools.mcp_recording URL < /dev/null >> recordings/mcp-server-2.3.0.jsonl      (from tests/)

records the calls below against a running server that has the tools `add(a, b)` and `fail()`. A line is one exchange:
{"case", "request": {"method", "headers", "body"}, "response": {"status", "headers", "body"}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.mcp.mcp import McpTool

RECORDING = Path(__file__).parent / "recordings" / "mcp-server-2.3.0.jsonl"
CALLS: dict[str, dict[str, Any]] = {
    "add": {"tool": "add", "arguments": {"a": 1, "b": 2}},
    "fail": {"tool": "fail"},
    "unknown-tool": {"tool": "none"},
    "bad-arguments": {"tool": "add", "arguments": {"a": "x"}},
    "list": {"method": "tools/list"},
    "unknown-method": {"method": "no/such"},
    "newer-protocol": {"tool": "add", "arguments": {"a": 1, "b": 2}, "protocol_version": "2025-06-18"},
}
_SENT = ("accept", "content-type", "mcp-session-id", "mcp-protocol-version")
_GOT = ("content-type", "mcp-session-id")


def sent(request: httpx.Request) -> dict[str, Any]:
    """What of a request counts."""
    body = json.loads(request.content) if request.content else None
    headers = {name: request.headers[name] for name in _SENT if name in request.headers}
    return {"method": request.method, "headers": headers, "body": body}


class Replay(httpx.AsyncBaseTransport):
    """Gives the recorded answers, in order, to the recorded requests; anything else is a failed test."""

    def __init__(self, case: str) -> None:
        lines = RECORDING.read_text(encoding="utf-8").splitlines()
        self.left = [one for one in map(json.loads, lines) if one["case"] == case]
        assert self.left, f"{RECORDING.name} has no case {case!r}"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        exchange = self.left.pop(0)
        assert sent(request) == exchange["request"]
        answer = exchange["response"]
        return httpx.Response(answer["status"], headers=answer["headers"], content=answer["body"].encode())


class Recorder(httpx.AsyncBaseTransport):
    """Passes requests on and prints the exchanges."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.real = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.real.handle_async_request(request)
        body = (await response.aread()).decode()
        headers = {name: response.headers[name] for name in _GOT if name in response.headers}
        answer = {"status": response.status_code, "headers": headers, "body": body}
        sys.stdout.write(json.dumps({"case": self.case, "request": sent(request), "response": answer}) + "\n")
        return httpx.Response(response.status_code, headers=headers, content=body.encode())


def main(url: str, mode: str) -> None:
    """Record every call; `mode` says how the server was started (sse or json, with or without sessions)."""
    for name, config in CALLS.items():
        run_tool(McpTool(Recorder(f"{mode}/{name}")), {"endpoint": url, **config})


if __name__ == "__main__":
    main(*sys.argv[1:])
