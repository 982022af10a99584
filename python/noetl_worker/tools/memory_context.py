"""A ToolContext for tests, without a control plane, and functions that run a tool once with such a context."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from noetl_worker.errors import CredentialError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.rust.rules import RustRules
from noetl_worker.text.templates import template
from noetl_worker.tools.contract import Stop, Tool, ToolCommand, ToolContext, ToolValues, ToolWorker
from noetl_worker.tools.registry import Registry

__all__ = ["MemoryControlPlane", "RecordedLogger", "arun_tool", "run_tool", "tool_context"]


class MemoryControlPlane:
    """A control plane in memory for tests. It records the calls of a tool and answers them.

    `executions` has the body of each `execute_playbook` call, by the id of the child execution. To end a child, put
    {"status": "COMPLETED", ...} into `statuses` under the child's id. `execution_detail` returns the child's events
    from `events`. `results` and `variables` hold the stored values. `document` is the playbook of the command.
    """

    def __init__(self) -> None:
        self.executions: dict[int, dict[str, JsonValue]] = {}
        self.statuses: dict[int, dict[str, JsonValue]] = {}
        self.events: dict[int, list[JsonValue]] = {}
        self.results: dict[str, bytes] = {}
        self.variables: dict[str, JsonValue] = {}
        self.document: dict[str, JsonValue] = {}
        self._ids = itertools.count(1001)

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        execution_id = next(self._ids)
        self.executions[execution_id] = dict(body)
        self.statuses.setdefault(execution_id, {"status": "RUNNING"})
        return {"execution_id": str(execution_id), "status": "started"}

    async def playbook(self) -> Mapping[str, JsonValue]:
        return self.document

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        return {"execution_id": str(execution_id), **self.statuses[execution_id]}

    async def execution_detail(self, execution_id: int) -> Mapping[str, JsonValue]:
        return {**await self.execution_status(execution_id), "events": self.events.get(execution_id, [])}

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        ref = f"noetl://memory/{source_step}/{name}"
        self.results[ref] = data
        return {"ref": ref, "bytes": len(data)}

    async def resolve_result(self, ref: str) -> JsonValue:
        from noetl_worker.text import json_text

        return json_text.loads(self.results[ref])

    async def get_var(self, name: str) -> JsonValue:
        return self.variables.get(name)

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        self.variables.update(variables)


class RecordedLogger:
    """A logger for tests. It adds (level, event, fields) of each line to `records` and passes the line on to the
    standard logging."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, Any]]] = []
        self._log = logging.getLogger("noetl_worker.testing")

    def debug(self, event: str, **fields: Any) -> None:
        self._keep("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._keep("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._keep("warning", event, fields)

    def _keep(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.records.append((level, event, fields))
        self._log.log(logging.getLevelName(level.upper()), "%s %s", event, fields)


@dataclass(slots=True)
class _MemorySecrets:
    credential: Callable[[str], Awaitable[Mapping[str, JsonValue]]]
    keep: Callable[[str], bool | None]


_METADATA: Final[tuple[str, ...]] = ("execution_id", "step", "server_url", "worker_id", "command_id")
"""Fields of the command that templates can also use as variables, in this test context as in a real worker."""


def tool_context(
    *,
    variables: Mapping[str, JsonValue] | None = None,
    credentials: Mapping[str, Mapping[str, JsonValue]] | None = None,
    control_plane: MemoryControlPlane | None = None,
    registry: Registry | None = None,
    secrets: set[str] | None = None,
    dialect: Dialect = RustRules.dialect,
    **overrides: Any,
) -> ToolContext:
    """Return a ToolContext for a test. Its control plane, credentials and log are in memory.

    Args:
        variables: the variables of templates and user code.
        credentials: alias -> data, as `context.secrets.credential` gives it ({"type": "bearer", "token": ...}).
        control_plane: a MemoryControlPlane that the test inspects afterwards; by default a new one.
        registry: for `context.worker.run_tool`; the built-in tools by default.
        secrets: set to which each text is added that the tool passes to `context.secrets.keep`.
        dialect: dialect of the plane that issued the command.
        overrides: any other field of ToolContext or of its groups (execution_id, step, timeout_s, input, logger, ...).

    Raises:
        TypeError: an override is not a field of ToolContext or of its groups; the message lists the fields.
    """
    metadata = {name: overrides[name] for name in _METADATA if name in overrides}
    scope: dict[str, JsonValue] = {**(variables or {}), **metadata}
    tools, plane = registry or Registry(plugins=False), control_plane or MemoryControlPlane()

    def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        return template.render(value, {**scope, **extra} if extra else scope)

    in_memory = _MemorySecrets(partial(_credential, credentials or {}), (set() if secrets is None else secrets).add)
    made = ToolContext(
        kind="test",
        timeout_s=None,
        stop=Stop(),
        logger=RecordedLogger(),
        command=ToolCommand(
            42, "42:step:1", "step", 1, "http://127.0.0.1:8082", "worker-test", form=RULES[dialect].tools
        ),
        values=ToolValues(scope, {}, render),
        secrets=in_memory,
        worker=ToolWorker(plane, tools.run_tool, tools.fields_of, tools.check, report_progress=lambda _: None),
        settings=tools.settings,
    )
    groups: tuple[Any, ...] = (made, made.command, made.values, in_memory, made.worker)
    holders = {field.name: group for group in groups for field in dataclasses.fields(group)}
    for name, value in overrides.items():
        if name not in holders:
            known = ", ".join(sorted(holders))
            raise TypeError(f"{name!r} is no field of ToolContext and no argument of tool_context; fields: {known}")
        setattr(holders[name], name, value)
    return made


async def _credential(known: Mapping[str, Mapping[str, JsonValue]], alias: str) -> Mapping[str, JsonValue]:
    if alias not in known:
        raise CredentialError(
            f"credential {alias!r} is not known; known: {sorted(known)}. Give it as credentials={{{alias!r}: {{...}}}}"
        )
    return known[alias]


async def arun_tool(tool: str | Tool[Any], config: Mapping[str, JsonValue], **context: Any) -> ToolResult:
    """Run a tool once in the running event loop, for a test.

    Args:
        tool: an instance of your tool, or a kind.
        config: the tool's config as a playbook has it, unrendered.
        context: keyword arguments for `tool_context`; or `context=` with an existing ToolContext.

    Raises:
        ToolError: the failure that the worker reports as `call.error`: a bad config, or a server that cannot be
            reached.
    """
    given = context.pop("context", None)
    registry = context.pop("registry", None) or Registry([] if isinstance(tool, str) else [tool], plugins=False)
    kind = tool if isinstance(tool, str) else tool.kind
    try:
        return await registry.run_tool(kind, config, given or tool_context(registry=registry, kind=kind, **context))
    finally:
        await registry.aclose()


def run_tool(tool: str | Tool[Any], config: Mapping[str, JsonValue], **context: Any) -> ToolResult:
    """Run a tool once on a new event loop: the counterpart of `arun_tool` for tests that are not `async`.

    Args:
        tool: an instance of your tool, or a kind.
        config: the tool's config as a playbook has it, unrendered.
        context: keyword arguments for `tool_context`; or `context=` with an existing ToolContext.

    Raises:
        ToolError: the failure that the worker reports as `call.error`.
    """
    return asyncio.run(arun_tool(tool, config, **context))
