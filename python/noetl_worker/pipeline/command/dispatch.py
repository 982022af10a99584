"""The tool call of a command: its preparation, and the stage `running`, which runs one tool within a timeout.

The commands `run`, `dev`, `exec` and `replay` of the command line all use this module. A tool can use the worker only
through the ToolContext that this module makes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

import structlog

from noetl_worker.errors import ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.spellings import SEQUENCES
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.observability import metrics
from noetl_worker.observability.logging import SafeLogger
from noetl_worker.observability.step_log import StepLog, Warned
from noetl_worker.observability.tool_times import status_after
from noetl_worker.observability.tracing import trace_headers
from noetl_worker.pipeline.claim.text_marks import read_marks
from noetl_worker.pipeline.command.cancellation import wait_until_cancelled
from noetl_worker.pipeline.command.credentials import CommandCredentials
from noetl_worker.pipeline.command.inputs import Inputs, checked
from noetl_worker.pipeline.command.tool_plane import ToolPlane
from noetl_worker.process.threads import LARGE, finished_off_loop, off_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text import json_text
from noetl_worker.text.secrets import redaction
from noetl_worker.text.templates.paths import places_in_code
from noetl_worker.tools.contract import Stop, ToolCommand, ToolContext, ToolValues, ToolWorker
from noetl_worker.tools.docs.task_schema import kinds_in
from noetl_worker.tools.kinds.task_sequence.task_sequence import SequenceData, python_form, rust_form
from noetl_worker.tools.process import live_output
from noetl_worker.tools.registry import PreparedTool, Registry
from noetl_worker.tools.scope import SHUTDOWN, CallScope

_MOST_PLACES: Final = 10
_CONFIG_ADVICE: Final = "look at `problem`, and correct the field that it names in this step of the playbook"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Limits of a tool call: timeouts in seconds, and whether an undefined variable is an error."""

    default_s: float
    """Timeout of a command whose config sets no timeout."""
    cancellation_poll_s: float
    """Seconds between two requests that ask the plane whether the execution was cancelled. If 0, the plane is never
    asked."""
    undefined_is_error: bool = False
    """True if an undefined variable in a template is an error."""
    hard_s: float = 86_400.0
    """Upper limit, in seconds, on any timeout that a command sets."""


class _Slots(Protocol):
    def waiting(self, kind: str | None = None, /) -> AbstractContextManager[None]: ...


@dataclass(slots=True, eq=False, repr=False)
class Dispatch:
    """The tool call of one command: `prepare` renders and checks the config, and `run` runs the tool."""

    registry: Registry
    command: Command
    plane: Plane
    worker_id: str
    limits: CallLimits
    slots: _Slots
    warned: Warned = field(default_factory=Warned)
    ran_at: float = field(default=0.0, init=False)
    """Monotonic time of the tool's start; 0 if the tool has not started."""
    ran_s: float = field(default=0.0, init=False)
    credentials: CommandCredentials = field(init=False)
    """The command's credentials. Their secrets are redacted in everything that leaves the worker."""
    _bound: StepLog | None = field(default=None, init=False)
    _stop: Stop = field(default_factory=Stop, init=False)
    _scope: CallScope | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.credentials = CommandCredentials(self.command, self.plane)

    def interrupt(self) -> None:
        """Stop the tool because the worker stops. A tool that has not started yet is stopped at its start."""
        self._stop.set(SHUTDOWN)
        if self._scope is not None:
            self._scope.interrupt(SHUTDOWN)

    def _log(self) -> StepLog:
        """Return the logger with the command's ids, made on first use: most commands log nothing."""
        if self._bound is None:
            command = self.command
            log = structlog.get_logger("noetl_worker.tool").bind(**command.log_ids())
            self._bound = StepLog(log, self.warned, command)
        return self._bound

    async def prepare(self) -> PreparedTool:
        """Resolve secrets, render the config, and check the config. All of this happens before `command.started`.

        Raises:
            ToolError: unknown kind, invalid config, or a template or credential that cannot be resolved.
        """
        command, known, strict = self.command, self.credentials.known, self.limits.undefined_is_error
        config, given, marks = command.config, command.input, command.marks
        redaction.remember(known.texts)
        await self.registry.load(command.kind)
        if command.kind in SEQUENCES:
            for kind in kinds_in(command.config):
                await self.registry.load(kind)
        if marks.secrets:
            await off_loop(command.size, partial(known.add_inline, command.variables.get("workload")))
        if marks.references:
            given = await self.credentials.resolve_references(given)
            config = await self.credentials.resolve_references(config)
        inputs = Inputs(command, self.credentials, self.worker_id, self.registry.fields_of, is_strict=strict)
        config, values = await inputs.merge(config, given)
        prepared = await off_loop(command.size, partial(self._checked, config, values))
        prepared.limit(self.limits.default_s, self.limits.hard_s)
        if prepared.warnings:
            self._warn(prepared)
        # A template that reads a redacted value raises an error. Code reads it without an error, so a line is logged.
        if command.redacted:
            find = partial(places_in_code, command.config, command.redacted)
            if read := await off_loop(command.size, find):
                advice = "rename the variables in `places` in the earlier step, or do not read them in this step's code"
                self._log().warning("variables_redacted_by_plane", places=read[:_MOST_PLACES], advice=advice)
        return prepared

    def _checked(self, config: Mapping[str, JsonValue], values: ToolValues) -> PreparedTool:
        """Return the prepared tool call, with the config rendered and checked. Remember the secrets in the config, so
        that they are redacted in results."""
        command, known, marks = self.command, self.credentials.known, self.command.marks
        # A template may have inserted a secret. Without templates, the config's text shows whether it has one.
        text = json_text.dumps(config) if marks.secrets and not marks.templates else b""
        may_name_secrets = marks.secrets and (marks.templates or read_marks(text).secrets)
        # The registry must not cache a config with a secret, and `add_inline` may miss one. So a config is not cached
        # if its text has a word like `password`, or an `@`, as a URL with a password has. `read_marks` would report any
        # URL, so it gets the text without each `://`.
        has_words = may_name_secrets and (
            marks.templates or b"@" in text or read_marks(text.replace(b"://", b"")).secrets
        )

        def has_secrets(part: object) -> bool:
            if may_name_secrets:
                known.add_inline(part)
            return has_words or marks.references or known.has_any

        return self.registry.prepare(command.kind, config, self._context(values), has_secrets=has_secrets)

    async def run(self, prepared: PreparedTool) -> ToolResult:
        """Run the tool to its end.

        Raises:
            CommandCancelled: the command's execution was cancelled.
            Interrupted: the worker stops.
            ToolError: the tool failed. Any other exception of the tool is raised as it is.
        """
        started = self.ran_at = time.monotonic()
        kind = self.command.kind
        try:
            if prepared.is_inline:
                result = await prepared.call()
            else:
                live_output.begin(self.command)
                self._scope = self._make_scope(prepared)
                result = await self._scope.run(prepared.call())
        except BaseException as error:
            if isinstance(error, ToolError):
                self._forget_if_refused(error)
            self.ran_s = time.monotonic() - started
            metrics.TOOLS.labels(kind, status_after(error)).observe(self.ran_s)
            raise
        took_s = self.ran_s = time.monotonic() - started
        metrics.TOOLS.series[kind, result.status].observe(took_s)
        if result.error is not None:
            self._forget_if_refused(result.error)
        if result.duration_ms is None:
            result = result.lasting(int(took_s * 1000))
        return self._plane_form(result, result.data) if type(result.data) is SequenceData else result

    def _make_scope(self, prepared: PreparedTool) -> CallScope:
        poll_s, command = self.limits.cancellation_poll_s, self.command
        asking = partial(wait_until_cancelled, self.plane, command, poll_s) if poll_s > 0 else None
        timeout_s = prepared.timeout_s or self.limits.hard_s
        return CallScope(self._stop, timeout_s, poll_s=poll_s, until_cancelled=asking, log_ids=command.log_ids)

    def _plane_form(self, result: ToolResult, data: SequenceData) -> ToolResult:
        """Return the result of a task sequence with its data in the format that the command's plane expects
        (protocol/tasks.md#lists)."""
        if not RULES[self.command.dialect].tools.sequence_is_flat:
            return replace(result, data=python_form(data))
        if result.exit_code is None and result.status is ToolStatus.SUCCESS:
            result = replace(result, exit_code=0)  # as the plane's own worker reports it (recorded: output-sql-ok)
        return replace(result, data=rust_form(data))

    def _context(self, values: ToolValues) -> ToolContext:
        command, known, registry = self.command, self.credentials.known, self.registry
        return ToolContext(
            command.kind,
            self.limits.hard_s,
            self._stop,
            SafeLogger(self._log, known.texts),
            ToolCommand(
                command.execution_id,
                command.command_id,
                command.step,
                command.attempt,
                command.server_url,
                self.worker_id,
                RULES[self.command.dialect].tools,
            ),
            values,
            self.credentials,
            ToolWorker(
                ToolPlane(self.plane, command, known.texts, self._log),
                self._run_tool,
                registry.fields_of,
                registry.check,
                self._report_progress,
                partial(self.slots.waiting, command.kind),
                trace_headers,
            ),
            registry.settings,
        )

    async def _run_tool(
        self, kind: str, config: Mapping[str, JsonValue] | Sequence[JsonValue], context: ToolContext
    ) -> ToolResult:
        """Run a tool inside the command's tool, such as one task of a sequence, within its own timeout.

        Remember the secrets in the inner tool's config before this tool runs. If a server refuses the tool's
        login, drop the cached secrets.
        """
        await self.registry.load(kind)
        if self.command.redacted:
            context = context.with_render(checked(context.values.render, self.command.redacted))
        prepared = self.registry.prepare(kind, config, context)
        known = self.credentials.known
        if not known.add_inline(prepared.config, most=LARGE):
            await finished_off_loop(partial(known.add_inline, prepared.config))
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
            self._log().warning("tool_config", kind=prepared.kind, problem=str(warning), advice=_CONFIG_ADVICE)

    def _forget_if_refused(self, failure: ToolError | ToolFailure) -> None:
        if failure.kind == "auth":
            self.credentials.forget()

    def _report_progress(self, progress: Mapping[str, JsonValue]) -> None:
        self._log().info("tool_progress", progress=redaction.redact_fields(progress, self.credentials.known.texts()))
