"""Kind `playbook`: starts a child execution, and waits for the child's end if the config asks for a result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ControlPlaneError, NotSent, ServerRefused, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.error_kinds import plane_failure
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.kinds.playbook.child import (
    NoSuchResult,
    NotShown,
    child_state,
    fetch_result,
    has_ended,
    steps_without_value,
)
from noetl_worker.tools.kinds.playbook.child_note import ChildNote

_MIN_POLL_S: Final = 0.05
_STATUS_ADVICE: Final = "if this goes on, check the control plane; the worker asks again for the child's status"
_VALUE_ADVICE: Final = (
    "`set` the value in the child under a name of its own; in this step use `return_result` without `return_step`, and "
    "read `variables.NAME` of its result"
)
_LIST_LAG_S: Final = 15.0
"""Seconds after the child's end during which the worker asks again for a missing result. The plane's list of completed
steps may be late (seen on the Python plane 4.0.0, 0.3 s after `playbook.completed`)."""


@dataclass(frozen=True, slots=True)
class PlaybookConfig:
    """Starts another playbook as a child execution. The step waits for the child only with `return_result` or
    `return_step`.

    Without these fields the step succeeds as soon as the control plane has accepted the child. A waiting step does not
    count towards the number of commands that the worker runs at once.
    """

    path: str | None = None
    """Path of the child playbook in the control plane's catalog. Either `path` or `catalog_id` is needed."""
    catalog_id: str | None = None
    """Id of the child playbook in the control plane's catalog, instead of `path`."""
    version: Any = None
    """Version of the child playbook; absent: the newest version in the catalog."""
    payload: dict[str, Any] = field(default_factory=dict)
    """The child's workload: the input values of the child execution."""
    input: dict[str, Any] = field(default_factory=dict)
    """Further input values of the child execution; a value here wins over a value of the same name in `payload`.
    Absent or empty: the step's own input."""
    parent_execution_id: int | None = None
    """Parent execution of the child; absent: this execution."""
    return_result: bool = False
    """Wait for the end of the child execution, and return the child's result as the step's result."""
    return_step: str | None = None
    """Name of a step of the child: wait for the child's end, and return the result of that step. If the plane lists the
    step late, the worker asks again for 15 s."""
    result_step: str | None = None
    """Another name of `return_step`, used by newer playbooks."""
    timeout: float | None = None
    """Seconds to wait for the child's end; absent: the command's remaining time. The child goes on after the
    timeout."""
    poll_interval: float = 2.0
    """Seconds between two requests for the child's status, at least 0.05."""

    def __post_init__(self) -> None:
        if not self.path and not self.catalog_id:
            raise ConfigurationError("'path' or 'catalog_id' is missing", field="path", reason="missing")
        if self.path and self.catalog_id:
            raise ConfigurationError("'path' and 'catalog_id' both name a child; keep one", field="catalog_id")

    @property
    def step(self) -> str | None:
        """Return the name of the child's step whose result this step returns. None: the result of the whole child."""
        return self.return_step or self.result_step

    @property
    def pause_s(self) -> float:
        return max(_MIN_POLL_S, self.poll_interval)


class PlaybookTool:
    kind: ClassVar[str] = "playbook"
    aliases: ClassVar[tuple[str, ...]] = ("playbooks",)
    config_model: ClassVar[type] = PlaybookConfig

    async def run(self, config: PlaybookConfig, context: ToolContext) -> ToolResult:
        if config.return_result or config.step:
            return await _wait(config, context)
        started = await _start(config, context)
        data = _started_data(started.get("execution_id"), config)
        # On the Python plane the answer is under `data`, and `status` is the call's, as from the Python worker.
        if context.command.form.child_is_its_status:
            data.update(status="success", data=dict(started))
        return ToolResult.success(data)


def _started_data(execution_id: JsonValue, config: PlaybookConfig) -> dict[str, JsonValue]:
    return {"status": "started", "execution_id": str(execution_id), "path": config.path, "async": True}


async def _wait(config: PlaybookConfig, context: ToolContext) -> ToolResult:
    """Start the child, or find the child that an earlier attempt of this command has started. Then wait for the child's
    end."""
    note = ChildNote(context)
    execution_id = await note.read()
    if execution_id is None:
        found = (await _start(config, context)).get("execution_id")
        if found is None:
            text = "the control plane started the child but gave no execution_id: look at the control plane's log"
            raise ToolError(text, kind="server_error")
        execution_id = int(found)
        await note.write(execution_id)
    else:
        context.logger.info("child_wait_resumed", child_execution_id=execution_id)
    data = _started_data(execution_id, config)
    child = _ChildRun(execution_id, data, config, context)
    try:
        with context.worker.waiting():
            result = await asyncio.wait_for(child.outcome(), context.timeout_s)
    except (asyncio.TimeoutError, TimeoutError):
        # Not retryable: a retry would start another child.
        result = ToolResult.timed_out(context.timeout_s or 0.0, retryable=False, data=data)
    except ToolError:
        await note.write(None)
        raise
    await note.write(None)
    return result


async def _start(config: PlaybookConfig, context: ToolContext) -> Mapping[str, JsonValue]:
    payload = {**config.payload, **(config.input or context.values.input)}  # an empty `input` counts as absent
    body: dict[str, JsonValue] = {"path": config.path} if config.path else {"catalog_id": config.catalog_id}
    if config.version is not None:
        body["version"] = config.version
    body["payload"] = payload
    body["parent_execution_id"] = config.parent_execution_id or context.command.execution_id
    if context.command.form.start_takes_trace and (trace := context.worker.trace_headers()):
        body["trace"] = dict(trace)
    name = config.path or config.catalog_id
    try:
        return await context.worker.control_plane.execute_playbook(body)
    except ControlPlaneError as error:  # without an answer the child may already run, so the start is not repeated
        said = f"{error.status} {excerpt(error.body, 500)}" if isinstance(error, ServerRefused) else error
        failure = plane_failure(f"Failed to start child playbook {name!r}: {said}", error)
        is_safe = isinstance(error, NotSent) or failure.kind == "rate_limit"
        raise ToolError(str(failure), kind=failure.kind, retryable=is_safe, code=failure.code) from None


@dataclass(slots=True)
class _ChildRun:
    """A child execution that the command waits for."""

    execution_id: int
    started: Mapping[str, JsonValue]
    """Fields of the step's result that identify the child, such as `execution_id` and `path`."""
    config: PlaybookConfig
    context: ToolContext

    async def outcome(self) -> ToolResult:
        """Wait until the child has ended. Return the result of the `playbook` step."""
        config, now, until = self.config, asyncio.get_running_loop().time, 0.0
        while True:
            status = await self._end()
            state = child_state(status)
            if state != "completed":
                return self._failure(f"child execution {self.execution_id} {state}", "playbook", status)
            until = until or now() + _LIST_LAG_S
            try:
                value = await fetch_result(status, config.step, self.execution_id, self.context, self._answered)
                break
            except NoSuchResult as error:
                if now() >= until:
                    wanted = f"a result of {config.step!r}" if config.step else "any result"
                    text = f"child execution {self.execution_id} completed without {wanted}; it has: {error}"
                    return self._failure(text[:2000], "not_found", status)
            except NotShown:
                return self._not_shown(status)
            await asyncio.sleep(min(config.pause_s, max(0.0, until - now())))
        if self.context.command.form.child_is_its_status:
            return ToolResult.success({**self._shown(status), "result": value})
        # The child's result is the value of the step, as in the Rust worker. A `status` in that result is kept.
        own = {**value, "status": value.get("status", status)} if isinstance(value, dict) else value
        return ToolResult.success(own)

    async def _end(self) -> Mapping[str, JsonValue]:
        """Wait until the child has ended. Return the plane's last status answer about the child."""
        plane, before = self.context.worker.control_plane, None
        while True:
            status: Mapping[str, JsonValue] = await self._answered(lambda: plane.execution_status(self.execution_id))
            if has_ended(status, before, self.config.step):
                return status
            before = status
            await asyncio.sleep(self.config.pause_s)

    async def _answered(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """Send a request to the control plane by calling `question`, and return the answer. A request that failed with
        a retryable error is sent again."""
        while True:
            try:
                return await question()
            except ControlPlaneError as error:
                if not error.is_retryable:
                    text = f"child execution {self.execution_id} cannot be read: {error}"
                    raise ToolError(text, kind="server_error") from error
                self.context.logger.warning("child_status_unknown", problem=str(error), advice=_STATUS_ADVICE)
            await asyncio.sleep(self.config.pause_s)

    def _failure(self, text: str, kind: str, status: Mapping[str, JsonValue]) -> ToolResult:
        """Return a failed result that names the child execution and its status. If the step has `return_result` on the
        Rust plane, raise ToolError instead.

        If a tool returns a failure, the Rust plane completes the step, and the playbook would go on without the value.
        The Rust worker raises too.
        """
        if self.config.return_result and not self.context.command.form.child_is_its_status:
            raise ToolError(text, kind=kind)
        return ToolResult.failure(text, kind=kind, data=self._child_fields(status))

    def _not_shown(self, status: Mapping[str, JsonValue]) -> ToolResult:
        """Return this step's result when the plane does not show the result of the child's step `return_step`.

        With `return_result` this step fails. Without it, this step's result is the plane's status document, as in
        NoETL's own Python worker, because some playbooks give `return_step` only to wait for the child.
        """
        problem = (
            f"child execution {self.execution_id} completed, but the control plane does not show the value of its step "
            f"{self.config.step!r}: it leaves out results with a `status` or a `reference`, and lists of tasks"
        )
        if self.config.return_result:
            return self._failure(f"{problem}: {_VALUE_ADVICE}", "not_found", status)
        self.context.logger.warning("child_value_not_shown", problem=problem, advice=_VALUE_ADVICE)
        return ToolResult.success(self._shown(status))

    def _shown(self, status: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the Python plane's status document about a completed child execution, and the steps whose values the
        document lacks."""
        missing = steps_without_value(status)
        return {**self._child_fields(status), **({"steps_without_value": missing} if missing else {})}

    def _child_fields(self, status: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the plane's status document about the child execution, and the fields that identify the child.

        On the Python plane the document's fields are fields of the result, as in NoETL's own Python worker. On the
        Rust plane the document is under `status`.
        """
        data = {**self.started, "async": False}
        if not self.context.command.form.child_is_its_status:
            return {**data, "status": dict(status)}
        return {**status, **data, "status": child_state(status), "variables": fields_of(status.get("variables"))}
