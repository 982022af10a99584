"""Stage 5: run exactly one tool for a command, under its timeout.

`dev` and `run` both come through here. A tool reaches the worker only by the ToolContext made here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog

from noetl_worker import engine, json_text, redaction, template
from noetl_worker.cancellation import until_cancelled
from noetl_worker.control_plane.client import Plane
from noetl_worker.credentials import CommandCredentials, keychain_names_in
from noetl_worker.errors import CommandCancelled, ConfigurationError, ToolError
from noetl_worker.models import Command, Dialect, FitRules, JsonValue, ToolResult, ToolStatus
from noetl_worker.observability import metrics
from noetl_worker.observability.logging import SafeLogger
from noetl_worker.slots import Slots
from noetl_worker.tools.contract import Stop, ToolContext
from noetl_worker.tools.registry import PreparedTool, Registry
from noetl_worker.tools.task_sequence import SequenceData, python_form, rust_form

__all__ = ["Dispatch", "Limits", "Ready", "failure_of"]

_BOTH_INPUTS: Final = ("args", "input")
STOP_GRACE_S: Final = 5.0
"""A tool that knows its timeout stops by itself and keeps its partial output; this much later it is cancelled."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A validated tool call that has not started yet."""

    prepared: PreparedTool
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a tool may run, in seconds, and how strictly its templates are read."""

    default_s: float
    """For a command that sets none."""
    hard_s: float
    """Whatever the command sets."""
    cancellation_poll_s: float
    """Between two questions whether the execution is cancelled; 0: never asked."""
    undefined_is_error: bool = False
    """For templates."""


class Dispatch:
    """The tool call of one command."""

    def __init__(
        self,
        registry: Registry,
        command: Command,
        plane: Plane,
        *,
        worker_id: str,
        limits: Limits,
        slots: Slots,
    ) -> None:
        self._registry = registry
        self._command = command
        self._plane = plane
        self._worker_id = worker_id
        self._limits = limits
        self._slots = slots
        self._credentials = CommandCredentials(command, plane)
        self._log = structlog.get_logger("noetl_worker.tool").bind(
            execution_id=command.execution_id, command_id=command.command_id, step=command.step
        )
        self.stop = Stop()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Secret values handed to the tool so far: they are taken out of everything that leaves."""
        return self._credentials.known.forms()

    async def prepare(self) -> Ready:
        """Resolve secrets, render and validate: everything that can go wrong before `command.started`.

        Raises:
            ToolError: unknown kind, bad config, a template or a credential that cannot be resolved.
        """
        known = self._credentials.known
        redaction.remember(known.forms)
        known.add_inline(self._command.variables.get("workload"))
        given = await self._credentials.resolve_references(dict(self._command.input))
        command = self._command = replace(self._command, input=given)
        config: dict[str, JsonValue] = await self._credentials.resolve_references(dict(command.config))
        templates: dict[str, JsonValue] = {"config": config, "input": given}
        context = await self._context(self._limits.hard_s, templates)
        whole = self._input_with_texts(config, context)
        if whole is not None:
            config = self._without_inputs(config)
            command = self._command = replace(command, input=whole)
            context = _with_rendered(whole, await self._context(self._limits.hard_s, templates))
        if command.input:
            config = {**config, "input": command.input}
        known.add_inline(config)
        prepared = self._registry.prepare(command.kind, config, context)
        prepared = prepared.within(self._limits.default_s, self._limits.hard_s)
        known.add_inline(prepared.config)
        self._warn(prepared)
        return Ready(prepared, prepared.timeout_s or self._limits.hard_s)

    def _without_inputs(self, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The config, and what it has under `spec`, without what `_input_with_texts` has taken from it."""
        left = {name: value for name, value in config.items() if name not in _BOTH_INPUTS or self._is_own(name)}
        spec = left.get("spec")
        return {**left, "spec": self._without_inputs(spec)} if isinstance(spec, Mapping) else left

    def _is_own(self, name: str) -> bool:
        """Whether `args` is no other spelling of `input`, but a field of the tool, as a container's."""
        return name == "args" and name in self._registry.fields_of(self._command.kind)

    def _input_with_texts(self, config: Mapping[str, JsonValue], context: ToolContext) -> dict[str, JsonValue] | None:
        """The command's input with that of the tool's config, where this is one text to render; None without one.

        The tool's own wins value by value, as where it is written as an object (`command._input`).
        """
        names = [name for name in _BOTH_INPUTS if isinstance(config.get(name), str) and not self._is_own(name)]
        if not names:
            return None
        whole: dict[str, JsonValue] = {}
        in_spec = config.get("spec")
        spec: Mapping[str, JsonValue] = in_spec if isinstance(in_spec, Mapping) else {}
        for name in _BOTH_INPUTS:
            if isinstance(spec.get(name), Mapping) and not self._is_own(name):
                whole.update(context.render(spec[name]))
        whole.update(self._command.input)
        for name in names:
            given = context.render(config[name])
            if given is not None and not isinstance(given, Mapping):
                kind = self._command.kind
                raise ConfigurationError(f"{kind}: field {name!r} must be an object, not {type(given).__name__}")
            whole.update(given or {})
        return whole

    async def run(self, ready: Ready) -> ToolResult:
        """Run the tool to its end, its timeout or our cancellation.

        Raises:
            CommandCancelled: its execution was cancelled.
            ToolError, or whatever else the tool raised.
        """
        started = time.monotonic()
        kind = self._command.kind
        task = asyncio.ensure_future(ready.prepared.run())
        try:
            result = await self._end_of(task, ready.timeout_s)
        except BaseException as error:
            if isinstance(error, ToolError) and error.kind == "auth":
                self._credentials.forget()
            await self._cancel(task, "shutdown" if isinstance(error, asyncio.CancelledError) else "failed")
            metrics.DISPATCH_ERRORS.labels(kind).inc()
            raise
        finally:
            metrics.DISPATCH_DURATION.labels(kind).observe(time.monotonic() - started)
        if result.status is not ToolStatus.SUCCESS:
            metrics.DISPATCH_ERRORS.labels(kind).inc()
            self._forget_if_refused(result)
        if result.duration_ms is None:
            result = replace(result, duration_ms=int((time.monotonic() - started) * 1000))
        return self._in_plane_form(result)

    def _in_plane_form(self, result: ToolResult) -> ToolResult:
        """A task sequence's data has one shape per plane (tools.md 5.5)."""
        if not isinstance(result.data, SequenceData):
            return result
        form = python_form if self._command.dialect is Dialect.PYTHON else rust_form
        return replace(result, data=form(result.data))

    async def _end_of(self, task: asyncio.Future[ToolResult], timeout_s: float) -> ToolResult:
        limit_s = timeout_s + STOP_GRACE_S
        poll_s = self._limits.cancellation_poll_s
        # Most commands end before the first look, and cost nothing.
        done, _ = await asyncio.wait({task}, timeout=min(limit_s, poll_s or limit_s))
        if not done and 0 < poll_s < limit_s:
            cancelled = asyncio.ensure_future(until_cancelled(self._plane, self._command.execution_id, poll_s))
            either: set[asyncio.Future[Any]] = {task, cancelled}
            try:
                await asyncio.wait(either, timeout=limit_s - poll_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cancelled.cancel()
            if cancelled.done() and not cancelled.cancelled() and not task.done():
                cancelled.result()  # a bug of the asking is no cancellation
                await self._cancel(task, "cancelled")
                raise CommandCancelled(f"execution {self._command.execution_id} was cancelled; the tool was stopped")
        if task.cancelled():  # nobody has stopped this command: told as a stop it would come again for ever
            raise ToolError("the tool was cancelled from within: something that it awaited was", kind="cancelled")
        return task.result() if task.done() else await self._stopped(task, timeout_s)

    async def _stopped(self, task: asyncio.Future[ToolResult], timeout_s: float) -> ToolResult:
        await self._cancel(task, "timeout")
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()  # it gave its partial output on the way out
        return ToolResult.timed_out(timeout_s)

    async def _cancel(self, task: asyncio.Future[ToolResult], reason: str) -> None:
        self.stop.set(reason)
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_GRACE_S)
        if not task.done():
            self._log.error("tool_not_stoppable", kind=self._command.kind, reason=reason)

    async def _context(self, timeout_s: float, templates: Mapping[str, JsonValue]) -> ToolContext:
        command = self._command
        variables: dict[str, JsonValue] = {
            # The input has been rendered by the plane; what is in braces there now is data (or had no value).
            **command.variables,
            **command.input,
            # Metadata wins over variables of the same name (tools.md 1.4).
            "execution_id": str(command.execution_id),
            "step": command.step,
            "server_url": command.server_url,
            "worker_id": self._worker_id,
            "command_id": command.command_id,
        }
        names = keychain_names_in(templates)
        if names or (names is not None and "keychain" not in variables):
            variables["keychain"] = await self._credentials.keychain_names(names)

        def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
            whole = {**variables, **extra} if extra else variables
            return template.render(value, whole, strict=self._limits.undefined_is_error)

        return ToolContext(
            execution_id=command.execution_id,
            command_id=command.command_id,
            step=command.step,
            kind=command.kind,
            server_url=command.server_url,
            worker_id=self._worker_id,
            attempt=command.attempt,
            timeout_s=timeout_s,
            variables=variables,
            input=command.input,
            stop=self.stop,
            logger=SafeLogger(self._log, self._credentials.known.forms),
            control_plane=_ToolPlane(self._plane, command, self._credentials.known.forms, self._log),
            render=render,
            credential=self._credentials.credential,
            run_tool=self._run_tool,
            report_progress=self._report_progress,
            waiting=partial(self._slots.waiting, command.kind),
            keep_secret=self._credentials.keep_secret,
            fields_of=self._registry.fields_of,
            check_tool=self._registry.check,
            undefined_is_error=self._limits.undefined_is_error,
        )

    async def _run_tool(
        self, kind: str, config: Mapping[str, JsonValue] | Sequence[JsonValue], context: ToolContext
    ) -> ToolResult:
        """A tool inside of a sequence, within its own timeout.

        Its own secrets are known before it runs, and a refusal drops them.
        """
        prepared = self._registry.prepare(kind, config, context)
        self._credentials.known.add_inline(prepared.config)
        self._warn(prepared)
        try:
            result = await prepared.run_in_time(STOP_GRACE_S)
        except ToolError as error:
            if error.kind == "auth":
                self._credentials.forget()
            raise
        self._forget_if_refused(result)
        return result

    def _warn(self, prepared: PreparedTool) -> None:
        for warning in prepared.warnings:
            self._log.warning("tool_config", kind=prepared.kind, problem=warning)

    def _forget_if_refused(self, result: ToolResult) -> None:
        if result.error is not None and result.error.kind == "auth":
            self._credentials.forget()

    def _report_progress(self, progress: Mapping[str, JsonValue]) -> None:
        self._log.info("tool_progress", progress=redaction.redact_fields(progress, self.secrets))


def _with_rendered(values: Mapping[str, JsonValue], context: ToolContext) -> ToolContext:
    """The context with `values` as what they are, data: they are not rendered a second time."""

    def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        return value if value is values else context.render(value, extra)

    return replace(context, render=render)


class _ToolPlane:
    """The control-plane calls a tool may make (tools/contract.py, ToolControlPlane).

    What the plane is given to keep leaves without the command's secrets.
    """

    def __init__(self, plane: Plane, command: Command, known: Callable[[], Sequence[str]], log: Any) -> None:
        self._plane = plane
        self._command = command
        self._known = known
        self._log = log

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        return await self._plane.execute_playbook(self._safe(body))

    async def playbook(self) -> Mapping[str, JsonValue]:
        catalog_id = self._command.catalog_id
        if catalog_id is None:
            raise ToolError("the command carries no catalog_id: its playbook cannot be looked up", kind="parse")
        found = (await self._plane.catalog_entry(catalog_id)).get("payload")
        if not isinstance(found, Mapping):
            raise ToolError(f"the catalog's entry {catalog_id} has no playbook in it", kind="parse")
        return found

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        return await self._plane.execution_status(execution_id)

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        safe = await asyncio.to_thread(engine.fit_result, data, FitRules(max_bytes=2**62, secrets=tuple(self._known())))
        return await self._plane.put_result(self._command.execution_id, name, safe.body, source_step=source_step)

    async def resolve_result(self, ref: str) -> JsonValue:
        return await self._plane.resolve_result(ref)

    async def get_var(self, name: str) -> JsonValue:
        return await self._plane.get_var(self._command.execution_id, name)

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        await self._plane.set_vars(self._command.execution_id, self._safe(variables), self._command.step)

    def _safe(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        given = json_text.plain(body)
        safe: Mapping[str, JsonValue] = redaction.without_known(given, self._known())
        if safe != given:
            advice = "pass the credential's alias on, not its value"
            self._log.warning("secret_not_passed_on", fields=sorted(_differing(given, safe)), advice=advice)
        return safe


def _differing(given: Mapping[str, JsonValue], safe: Mapping[str, JsonValue]) -> set[str]:
    return {name for name in safe if name not in given or given[name] != safe[name]}


def failure_of(error: BaseException) -> ToolResult:
    """The failure that an exception after the claim is told as: type, message and cause chain (T-19)."""
    chain: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        text = str(current)
        named = isinstance(current, ToolError)
        chain.append(
            text if named and text else f"{type(current).__name__}: {text}" if text else type(current).__name__
        )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    message = "; caused by ".join(dict.fromkeys(chain))
    if isinstance(error, ToolError):
        return ToolResult.failure(message, kind=error.kind, retryable=error.retryable, code=error.code)
    details: dict[str, Any] = {"code": type(error).__name__}
    return ToolResult.failure(message, kind="unknown", **details)
