"""Tests of a tool without a worker, for authors of tools.

    from noetl_worker.testing import HttpStub, call_tool, run_tool

    def test_greets():
        result = run_tool(GreetTool(), {"name": "{{ who }}"}, variables={"who": "ada"})
        assert result.data == {"greeting": "hello ada"}

    def test_refused_token_is_told_and_not_shown():
        with HttpStub() as server:
            server.answer("GET /me", status=401)
            call = call_tool(
                GreetTool(), {"url": server.url, "auth": "mine"}, credentials={"mine": {"token": "s3cret-token"}}
            )
        assert (call.kind, call.retryable) == ("auth", False)
        call.assert_no_secrets()

`run_tool` returns the result or raises. `call_tool` returns everything about the call, failures too. As in the worker,
the registry handles the config: spellings, templates, types, unknown fields.
"""

from noetl_worker.testing.http_stub import HttpStub, Received
from noetl_worker.testing.tool_call import ToolCall, acall_tool, call_tool
from noetl_worker.tools.memory_context import MemoryControlPlane, RecordedLogger, arun_tool, run_tool, tool_context

__all__ = [
    "HttpStub",
    "MemoryControlPlane",
    "Received",
    "RecordedLogger",
    "ToolCall",
    "acall_tool",
    "arun_tool",
    "call_tool",
    "run_tool",
    "tool_context",
]
