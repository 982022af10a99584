"""Secrets around one tool call: known before it runs, dropped when they are refused, never passed on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult
from noetl_worker.models.slots import Slots
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry
from unit.planes import ScriptedTransport, answer, command, plane

RECORD = {"id": "1", "name": "svc", "type": "bearer", "data": {"token": "s3cr3t-value"}}
Act = Callable[[ToolContext], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class ActConfig:
    auth: str = "svc"
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None


class ActTool:
    kind: ClassVar[str] = "act"
    config_model: ClassVar[type] = ActConfig

    def __init__(self, act: Act) -> None:
        self.act = act

    async def run(self, config: ActConfig, context: ToolContext) -> ToolResult:
        await context.secrets.credential(config.auth)
        return await self.act(context)


async def fine(context: ToolContext) -> ToolResult:
    return ToolResult.success()


async def raises(context: ToolContext) -> ToolResult:
    raise ToolError("401", kind="auth")


async def returns(context: ToolContext) -> ToolResult:
    return ToolResult.failure("401", kind="auth")


async def fails_otherwise(context: ToolContext) -> ToolResult:
    return ToolResult.failure("500", kind="server_error")


def asked(transport: ScriptedTransport) -> int:
    return sum("/api/credentials/" in path for _, path, _, _ in transport.sent)


async def runs(*acts: Act, kind: str = "act", config: Any = None) -> tuple[ScriptedTransport, list[Dispatch]]:
    """Commands of one execution, one after the other."""
    at, transport = plane(lambda *_: answer(200, RECORD))
    made, limits = [], CallLimits(default_s=30, cancellation_poll_s=0)
    for act in acts:
        one, tools = command(kind=kind, config=config or {}), Registry([ActTool(act)], plugins=False)
        dispatch = Dispatch(tools, one, at, worker_id="w", limits=limits, slots=Slots(1))
        made.append(dispatch)
        with contextlib.suppress(ToolError):
            await dispatch.run(await dispatch.prepare())
    return transport, made


@pytest.mark.parametrize(("first", "times"), [(fine, 1), (fails_otherwise, 1), (raises, 2), (returns, 2)])
async def test_credential_that_a_tool_was_refused_with_is_asked_for_again(first: Act, times: int) -> None:
    transport, _ = await runs(first, fine)
    assert asked(transport) == times


@pytest.mark.parametrize(("first", "times"), [(fine, 1), (raises, 2), (returns, 2)])
async def test_so_it_is_inside_of_a_sequence_that_handles_the_refusal(first: Act, times: int) -> None:
    tasks = [{"name": "t", "kind": "act", "spec": {"policy": {"rules": [{"else": {"then": {"do": "continue"}}}]}}}]
    transport, _ = await runs(first, fine, kind="task_sequence", config={"tasks": tasks})
    assert asked(transport) == times


async def test_secrets_of_the_config_are_known_before_the_tool_runs() -> None:
    config = {"headers": {"X-Api-Key": "inline-secret", "Accept": "text/plain"}}
    _, [dispatch] = await runs(fine, config=config)
    assert {"inline-secret", "s3cr3t-value"} <= set(dispatch.credentials.known.texts().all)
    assert not {"svc", "text/plain", "bearer"} & set(dispatch.credentials.known.texts().all)


class CountedThreads(ThreadPoolExecutor):
    calls = 0

    def submit(self, *given: Any, **more: Any) -> Any:
        self.calls += 1
        return super().submit(*given, **more)


@pytest.mark.parametrize(("size", "calls"), [(1_000, 0), (300_000, 1)])
async def test_large_variable_is_redacted_beside_the_loop(size: int, calls: int) -> None:
    async def hands_over(context: ToolContext) -> ToolResult:
        await context.worker.control_plane.set_vars({"a": ["x" * size + "s3cr3t-value"]})
        return ToolResult.success()

    threads = CountedThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    transport, _ = await runs(hands_over)
    assert threads.calls == calls
    assert transport.sent[-1][2]["variables"] == {"a": ["x" * size + "[REDACTED]"]}


async def test_what_a_tool_hands_to_the_plane_leaves_without_its_secrets() -> None:
    async def hands_over(context: ToolContext) -> ToolResult:
        context.secrets.keep("got-by-itself")
        there = context.worker.control_plane
        await there.set_vars({"a": ["s3cr3t-value"], "auth": "svc"})
        await there.execute_playbook({"path": "p", "payload": {"t": "x got-by-itself", "pg_auth": "pg_local"}})
        await there.put_result("n", b'{"a":"s3cr3t-value","n":1}', source_step="start")
        return ToolResult.success()

    transport, _ = await runs(hands_over)
    bodies = [body for method, _, body, _ in transport.sent if method in ("POST", "PUT")]
    assert bodies[0]["variables"] == {"a": ["[REDACTED]"], "auth": "svc"}
    assert bodies[1] == {"path": "p", "payload": {"t": "x [REDACTED]", "pg_auth": "pg_local"}}
    assert bodies[2]["data"] == {"a": "[REDACTED]", "n": 1}
