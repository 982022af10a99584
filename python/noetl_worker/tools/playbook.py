"""Kind `playbook`: start a child execution (tools.md 2.13), and wait for it only when asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ControlPlaneError, ServerRefused, ToolError
from noetl_worker.models import JsonValue, ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left
from noetl_worker.tools.fields import excerpt

__all__ = ["PlaybookConfig", "PlaybookTool"]

_ENDED: Final = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "CANCELED": "cancelled"}
_WAIT_S: Final = 300.0
_MIN_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class PlaybookConfig:
    """Starts another playbook as a child execution, and waits for it only when asked to.

    The step succeeds as soon as the control plane has taken the child; with `return_result` or `return_step` it waits
    for the child's end. A step that waits holds no slot of the worker.
    """

    path: str | None = None
    """Path of the child in the catalog; this or `catalog_id` is needed."""
    catalog_id: str | None = None
    """Id of the child in the catalog, instead of `path`."""
    version: Any = None
    """Version of the child; absent: the newest."""
    payload: dict[str, Any] = field(default_factory=dict)
    """The child's workload."""
    input: dict[str, Any] = field(default_factory=dict)
    """More of the child's workload; wins over `payload`. Absent or empty: the step's own input."""
    parent_execution_id: int | None = None
    """Execution that the child is a part of; absent: this one."""
    return_result: bool = False
    """Wait for the child's end and give its variables back."""
    return_step: str | None = None
    """Wait for the child's end and give this step's result back."""
    result_step: str | None = None
    """The same as `return_step`, as newer playbooks write it."""
    timeout: float | None = None
    """Seconds to wait for the child's end; absent: 300, or what the command has left. The child goes on after it."""
    poll_interval: float = 2.0
    """Seconds between two questions for the child's status, at least 0.05."""

    def __post_init__(self) -> None:
        if not self.path and not self.catalog_id:
            raise ValueError("'path' or 'catalog_id' is missing")
        if self.path and self.catalog_id:
            raise ValueError("'path' and 'catalog_id' both name a child; keep one")


class PlaybookTool:
    kind: ClassVar[str] = "playbook"
    aliases: ClassVar[tuple[str, ...]] = ("playbooks",)
    config_model: ClassVar[type] = PlaybookConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    async def run(self, config: PlaybookConfig, context: ToolContext) -> ToolResult:
        started = await _start(config, context)
        execution_id = started.get("execution_id")
        data: dict[str, JsonValue] = {
            "status": "started",
            "execution_id": str(execution_id),
            "path": config.path,
            "async": True,
        }
        step = config.return_step or config.result_step
        if not (config.return_result or step):
            return ToolResult.success(data)
        if execution_id is None:
            raise ToolError("the control plane started the child but gave no execution_id", kind="server_error")
        limit = time_left(config.timeout, context) or _WAIT_S
        try:
            with context.waiting():
                status = await asyncio.wait_for(_ended(int(execution_id), config, context), limit)
        except (asyncio.TimeoutError, TimeoutError):
            return ToolResult.timed_out(limit, data=data)
        return _result(status, {**data, "async": False}, step)


async def _start(config: PlaybookConfig, context: ToolContext) -> Mapping[str, JsonValue]:
    payload = {**config.payload, **(config.input or context.input)}  # empty is not present: trap 27
    body: dict[str, JsonValue] = {"path": config.path} if config.path else {"catalog_id": config.catalog_id}
    if config.version is not None:
        body["version"] = config.version
    body["payload"] = payload
    body["parent_execution_id"] = config.parent_execution_id or context.execution_id
    name = config.path or config.catalog_id
    try:
        return await context.control_plane.execute_playbook(body)
    except ServerRefused as error:
        kind = "not_found" if error.status == 404 else "client_error" if error.status < 500 else "server_error"
        text = f"Failed to start child playbook {name!r}: {error.status} {excerpt(error.body, 500)}"
        raise ToolError(text, kind=kind, retryable=error.status >= 500, code=str(error.status)) from error
    except ControlPlaneError as error:  # the child may run already: repeating could start a second one
        text = f"Failed to start child playbook {name!r}: {error}"
        raise ToolError(text, kind="connection", retryable=error.is_retryable) from error


async def _ended(execution_id: int, config: PlaybookConfig, context: ToolContext) -> Mapping[str, JsonValue]:
    """The status answer of the ended child; an answer that cannot be had is asked for again."""
    while True:
        try:
            status = await context.control_plane.execution_status(execution_id)
        except ControlPlaneError as error:
            context.logger.warning("child_status", child=str(execution_id), problem=str(error))
            if not error.is_retryable:
                raise ToolError(f"the child's status cannot be read: {error}", kind="server_error") from error
        else:
            if _state(status) is not None:
                return status
        await asyncio.sleep(max(_MIN_POLL_S, config.poll_interval))


def _state(status: Mapping[str, JsonValue]) -> str | None:
    """completed, failed, cancelled, or None while it runs; the planes say it in different fields (trap 15)."""
    if status.get("is_cancelled") or status.get("cancelled"):
        return "cancelled"
    if status.get("failed"):
        return "failed"
    if status.get("completed"):
        return "completed"
    return _ENDED.get(str(status.get("status")).upper())


def _result(status: Mapping[str, JsonValue], data: dict[str, JsonValue], step: str | None) -> ToolResult:
    state = _state(status)
    data["status"] = state
    variables = status.get("variables")
    found = variables if isinstance(variables, Mapping) else {}
    data["result"] = found.get(step) if step else dict(found)
    if state != "completed":
        return ToolResult.failure(f"child execution {data['execution_id']} {state}", kind="playbook", data=data)
    ran = status.get("completed_steps")
    known = {*found, *(ran if isinstance(ran, list) else ())}
    if step and step not in known:
        there = ", ".join(sorted(map(str, known))) or "nothing"
        text = f"child execution {data['execution_id']} completed without a result of {step!r}; it has: {there}"
        return ToolResult.failure(text[:2000], kind="not_found", data=data)
    return ToolResult.success(data)
