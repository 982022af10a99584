"""Stage 5: run exactly one tool for a command, under its timeout.

`dev` and `run` both come through here. A tool reaches the worker only by the ToolContext made here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import structlog

from noetl_worker import json_text
from noetl_worker.claim.text_marks import marks_of
from noetl_worker.command.cancellation import until_cancelled
from noetl_worker.command.credentials import CommandCredentials
from noetl_worker.command.inputs import Inputs, checked
from noetl_worker.command.tool_plane import ToolPlane
from noetl_worker.errors import ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.fit import SecretTexts
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.observability import metrics
from noetl_worker.observability.logging import SafeLogger
from noetl_worker.observability.step_log import StepLog, Warned
from noetl_worker.observability.tool_times import ended_by
from noetl_worker.observability.tracing import trace_headers
from noetl_worker.plane.client import Plane
from noetl_worker.plane.dialects import RULES
from noetl_worker.plane.spellings import SEQUENCES, inputs_of
from noetl_worker.secrets import redaction
from noetl_worker.templates import template
from noetl_worker.templates.paths import names_in
from noetl_worker.templates.redacted import check_given, codes_in, mark_stored
from noetl_worker.tools.contract import Stop, ToolContext
from noetl_worker.tools.docs.task_schema import kinds_in
from noetl_worker.tools.registry import PreparedTool, Registry
from noetl_worker.tools.scope import SHUTDOWN, CallScope
from noetl_worker.tools.task_sequence import SequenceData, python_form, rust_form

__all__ = ["CallLimits", "Dispatch"]

_Given = tuple[str, JsonValue]
"""(the field, its value)"""
_FIRST_NAME: Final = re.compile(r"[.\[]")
"""What ends it in a place."""
_MOST_PLACES: Final = 10


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long a tool may run, in seconds, and how strictly its templates are read."""

    default_s: float
    """For a command that sets none."""
    cancellation_poll_s: float
    """Between two questions whether the execution is cancelled; 0: never asked."""
    undefined_is_error: bool = False
    """For templates."""
    hard_s: float = 86_400.0
    """Whatever the command sets."""


class _Slots(Protocol):
    def waiting(self, kind: str | None = None, /) -> AbstractContextManager[None]: ...


class Dispatch:
    """The tool call of one command."""

    def __init__(
        self,
        registry: Registry,
        command: Command,
        plane: Plane,
        *,
        worker_id: str,
        limits: CallLimits,
        slots: _Slots,
        warned: Warned | None = None,
    ) -> None:
        self._registry, self._command, self._plane = registry, command, plane
        self._worker_id, self._limits, self._slots = worker_id, limits, slots
        self._rules = RULES[command.dialect]
        self._credentials = CommandCredentials(command, plane)
        self._warned = warned or Warned()
        self._bound: StepLog | None = None
        self._stop = Stop()
        self._scope: CallScope | None = None

    @property
    def secrets(self) -> SecretTexts:
        """Secret values handed to the tool so far: they are taken out of everything that leaves."""
        return self._credentials.known.texts()

    def interrupt(self) -> None:
        """The worker stops: so does the tool, if it runs."""
        self._stop.set(SHUTDOWN)
        if self._scope is not None:
            self._scope.interrupt(SHUTDOWN)

    def _log(self) -> StepLog:
        """A logger with the command's ids; most commands have nothing to log."""
        if self._bound is None:
            command = self._command
            log = structlog.get_logger("noetl_worker.tool").bind(
                execution_id=command.execution_id, command_id=command.command_id, step=command.step
            )
            self._bound = StepLog(log, self._warned, command)
        return self._bound

    async def prepare(self) -> PreparedTool:
        """Resolve secrets, render and validate: everything that can go wrong before `command.started`.

        Raises:
            ToolError: unknown kind, bad config, a template or a credential that cannot be resolved.
        """
        command, known, strict = self._command, self._credentials.known, self._limits.undefined_is_error
        config, given, marks = command.config, command.input, command.marks
        redaction.remember(known.texts)
        await self._registry.load(self._command.kind)
        if self._command.kind in SEQUENCES:
            for kind in kinds_in(self._command.config):
                await self._registry.load(kind)
        if marks.secrets:
            known.add_inline(command.variables.get("workload"))
        if marks.references:
            given = await self._credentials.resolve_references(dict(given))
            config = await self._credentials.resolve_references(dict(config))
        inputs = Inputs(command, self._credentials, self._worker_id, self._registry.fields_of, is_strict=strict)
        config, values = await inputs.of(config, given)
        # A template may have put anything in; else a config whose own text names no secret has none.
        may_name_secrets = marks.secrets and (marks.templates or marks_of(json_text.dumps(config)).secrets)
        if may_name_secrets:
            known.add_inline(config)
        has_secrets = may_name_secrets or marks.references or known.has_any
        prepared = self._registry.prepare(command.kind, config, self._context(values), has_secrets=has_secrets)
        prepared.limit(self._limits.default_s, self._limits.hard_s)
        if may_name_secrets:
            known.add_inline(prepared.config)
        if prepared.warnings:
            self._warn(prepared)
        if command.redacted and (read := places_in_code(command.config, command.redacted)):  # templates that do, fail
            advice = "see that the code does not read these, or let the earlier step name them otherwise"
            self._log().warning("variables_redacted_by_plane", places=read[:_MOST_PLACES], advice=advice)
        return prepared

    async def _with_input(
        self, config: Mapping[str, JsonValue], given: Mapping[str, JsonValue]
    ) -> tuple[Mapping[str, JsonValue], ToolContext]:
        """The config with all of the command's input, rendered, and the context to run it in."""
        has_templates = self._command.marks.templates
        templates: Mapping[str, JsonValue] | None = {"config": config, "input": given} if has_templates else None
        # A template in the input sees the values beside it, no template: it would find its own text.
        values = (
            {name: value for name, value in given.items() if not template.has_template(value)}
            if has_templates
            else given
        )
        context = await self._context(values, templates)
        in_spec, as_text = self._inputs_of(config)
        if not has_templates and not in_spec and not as_text:
            return ({**config, "input": given} if given else config), context
        inputs = self._input(in_spec, as_text, given, context)
        if in_spec or as_text or len(values) < len(given):
            config = self._without_inputs(config)
            context = await self._context(inputs, templates)
        if inputs:
            config, context = {**config, "input": inputs}, _with_rendered(inputs, context)
        return config, context

    def _without_inputs(self, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The config, and what it has under `spec`, without what `_input` has taken from it."""
        left = {name: value for name, value in config.items() if name not in self._inputs}
        spec = left.get("spec")
        return {**left, "spec": self._without_inputs(spec)} if isinstance(spec, Mapping) else left

    @property
    def _inputs(self) -> tuple[str, ...]:
        return inputs_of(self._registry.fields_of(self._command.kind))

    def _inputs_of(self, config: Mapping[str, JsonValue]) -> tuple[list[_Given], list[_Given]]:
        """Inputs that the config still has: objects under `spec`, and one text at the top that is to give an object."""
        if "args" not in config and "input" not in config and "spec" not in config:
            return [], []
        names = self._inputs
        spec = config.get("spec")
        below: Mapping[str, JsonValue] = spec if isinstance(spec, Mapping) else {}
        in_spec = [(name, below[name]) for name in names if isinstance(below.get(name), Mapping)]
        return in_spec, [(name, config[name]) for name in names if isinstance(config.get(name), str)]

    def _input(
        self,
        in_spec: Sequence[_Given],
        as_text: Sequence[_Given],
        given: Mapping[str, JsonValue],
        context: ToolContext,
    ) -> dict[str, JsonValue]:
        """All inputs, rendered, as one. Which one wins is the plane's, as with objects (`command._input`)."""
        commands = [("input", given)]
        above = [*as_text, *commands] if self._rules.step_input_wins else [*commands, *as_text]
        merged: dict[str, JsonValue] = {}
        for name, value in [*in_spec, *above]:
            try:
                values = self._rendered(value, context)
            except TemplateError as error:
                raise TemplateError(f"{self._command.kind}: field {name!r}: {error}") from error
            if values is not None and not isinstance(values, Mapping):
                kind = self._command.kind
                raise ConfigurationError(f"{kind}: field {name!r} must be an object, not {type(values).__name__}")
            merged.update(values or {})
        return merged

    def _rendered(self, value: JsonValue, context: ToolContext) -> JsonValue:
        """An input, rendered. What is missing is null, and on the Python plane an empty text (recorded: view-*)."""
        missing = self._rules.tools.missing_value if isinstance(value, Mapping) else None
        strict = self._limits.undefined_is_error
        rendered = template.render(value, context.variables, strict=strict, undefined=missing)
        if self._command.redacted:
            check_given(rendered, self._command.redacted)
        return rendered

    async def run(self, prepared: PreparedTool) -> ToolResult:
        """Run the tool to its end.

        Raises:
            CommandCancelled: its execution was cancelled.
            Interrupted: the worker stops.
            ToolError, or whatever else the tool raised.
        """
        started = time.monotonic()
        kind = self._command.kind
        try:
            if prepared.is_inline:
                result = await prepared.call()
            else:
                self._scope = self._scope_of(prepared)
                result = await self._scope.run(prepared.call())
        except BaseException as error:
            if isinstance(error, ToolError):
                self._forget_if_refused(error)
            metrics.TOOLS.labels(kind, ended_by(error)).observe(time.monotonic() - started)
            raise
        took_s = time.monotonic() - started
        metrics.TOOLS.series[kind, result.status].observe(took_s)
        if result.error is not None:
            self._forget_if_refused(result.error)
        if result.duration_ms is None:
            result = result.lasting(int(took_s * 1000))
        return self._in_plane_form(result, result.data) if type(result.data) is SequenceData else result

    def _scope_of(self, prepared: PreparedTool) -> CallScope:
        poll_s, execution_id = self._limits.cancellation_poll_s, self._command.execution_id
        asking = partial(until_cancelled, self._plane, execution_id, poll_s) if poll_s > 0 else None
        return CallScope(self._stop, prepared.timeout_s or self._limits.hard_s, poll_s=poll_s, until_cancelled=asking)

    def _in_plane_form(self, result: ToolResult, data: SequenceData) -> ToolResult:
        """A task sequence's data has one shape per plane (protocol/tasks.md#lists)."""
        if not self._rules.tools.sequence_is_flat:
            return replace(result, data=python_form(data))
        if result.exit_code is None and result.status is ToolStatus.SUCCESS:
            result = replace(result, exit_code=0)  # recorded (output-sql-ok): whatever its last task was
        return replace(result, data=rust_form(data))

    def _context(self, values: ToolValues) -> ToolContext:
        command, known, registry = self._command, self._credentials.known, self._registry
        return ToolContext(
            command.kind,
            self._limits.hard_s,
            self._stop,
            SafeLogger(self._log, known.texts),
            ToolCommand(
                command.execution_id,
                command.command_id,
                command.step,
                command.attempt,
                command.server_url,
                self._worker_id,
                self._rules.tools,
            ),
            values,
            self._credentials,
            ToolWorker(
                ToolPlane(self._plane, command, known.texts, self._log),
                self._run_tool,
                registry.fields_of,
                registry.check,
                self._report_progress,
                partial(self._slots.waiting, command.kind),
                trace_headers,
            ),
        )

    async def _run_tool(
        self, kind: str, config: Mapping[str, JsonValue] | Sequence[JsonValue], context: ToolContext
    ) -> ToolResult:
        """A tool inside of a sequence, within its own timeout.

        Its own secrets are known before it runs, and a refusal drops them.
        """
        await self._registry.load(kind)
        if self._command.redacted:
            context = context.with_render(checked(context.values.render, self._command.redacted))
        prepared = self._registry.prepare(kind, config, context)
        self._credentials.known.add_inline(prepared.config)
        self._warn(prepared)
        try:
            result = await prepared.run_in_time()
        except ToolError as error:
            self._forget_if_refused(error)
            raise
        if result.error is not None:
            self._forget_if_refused(result.error)
        return result

    def _warn(self, prepared: PreparedTool) -> None:
        for warning in prepared.warnings:
            self._log().warning("tool_config", kind=prepared.kind, problem=warning)

    def _forget_if_refused(self, failure: ToolError | ToolFailure) -> None:
        if failure.kind == "auth":
            self._credentials.forget()

    def _report_progress(self, progress: Mapping[str, JsonValue]) -> None:
        self._log().info("tool_progress", progress=redaction.redact_fields(progress, self.secrets))


def _with_rendered(values: Mapping[str, JsonValue], context: ToolContext) -> ToolContext:
    """The context with `values` as what they are, data: they are not rendered a second time."""

    def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        return value if value is values else context.render(value, extra)

    return replace(context, render=render)


def _checking(context: ToolContext, redacted: Sequence[str]) -> ToolContext:
    """The context for commands with values that the plane has taken out: what it renders has none in it, or raises."""

    def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        rendered = context.render(value, extra)
        check_given(rendered, redacted)
        return rendered

    return replace(context, render=render)


class _ToolPlane:
    """The control-plane calls a tool may make (tools/contract.py, ToolControlPlane).

    What the plane is given to keep leaves without the command's secrets.
    """

    def __init__(
        self, plane: Plane, command: Command, known: Callable[[], SecretTexts], log: Callable[[], Any]
    ) -> None:
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

    async def execution_detail(self, execution_id: int) -> Mapping[str, JsonValue]:
        return await self._plane.execution_detail(execution_id)

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        safe = await asyncio.to_thread(redaction.fit_result, data, FitRules.of(self._known(), max_bytes=2**62))
        return await self._plane.put_result(self._command.execution_id, name, safe.body, source_step=source_step)

    async def resolve_result(self, ref: str) -> JsonValue:
        found, packed = await self._plane.stored_result(ref)
        if places := mark_stored(found, packed, "", redacts=self._plane.rules.redacts_results):
            fields = {"places": places[:_MOST_PLACES], "advice": _STORED_ADVICE}
            self._log().warning("stored_result_redacted_by_plane", ref=ref, **fields)
        return found

    async def get_var(self, name: str) -> JsonValue:
        return await self._plane.get_var(self._command.execution_id, name)

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        await self._plane.set_vars(self._command.execution_id, self._safe(variables), self._command.step)

    def _safe(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        given = json_text.plain(body)
        safe: Mapping[str, JsonValue] = redaction.without_known(given, self._known())
        if safe != given:
            advice = "pass the credential's alias on, not its value"
            self._log().warning("secret_not_passed_on", fields=sorted(_differing(given, safe)), advice=advice)
        return safe


def _differing(given: Mapping[str, JsonValue], safe: Mapping[str, JsonValue]) -> set[str]:
    return {name for name in safe if name not in given or given[name] != safe[name]}


def failure_of(error: BaseException) -> ToolResult:
    """The failure that an exception after the claim is reported as: type, message and cause chain (T-19)."""
    chain: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        text = str(current)
        named = isinstance(current, ToolError)
        if not any(
            len(text) >= _REPEATED_CHARS and text in earlier for earlier in chain
        ):  # "X; caused by ValueError: X"
            chain.append(
                text if named and text else f"{type(current).__name__}: {text}" if text else type(current).__name__
            )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    message = "; caused by ".join(dict.fromkeys(chain))
    if isinstance(error, ToolError):
        return ToolResult.failure(message, kind=error.kind, retryable=error.retryable, code=error.code)
    details: dict[str, Any] = {"code": type(error).__name__}
    return ToolResult.failure(message, kind="unknown", **details)
