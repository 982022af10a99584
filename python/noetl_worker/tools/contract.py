"""The tool contract: the protocol that a tool implements, and the services that the worker offers to a tool.

A tool imports this module, `models`, `errors` and its own library. The tool gets everything else from the `ToolContext`
of its call. A plug-in tool needs no other file of the worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from noetl_worker.models.tool_result import ToolForm, ToolResult
from noetl_worker.models.wire import CommandId, JsonValue
from noetl_worker.settings.tools import ToolSettings

__all__ = [
    "CONTRACT_VERSION",
    "Render",
    "Stop",
    "Tool",
    "ToolCommand",
    "ToolContext",
    "ToolControlPlane",
    "ToolForm",
    "ToolLogger",
    "ToolSecrets",
    "ToolSettings",
    "ToolValues",
    "ToolWorker",
]

CONTRACT_VERSION: Final = 1
"""Version of the contract in this file. The attribute `contract` of a tool names the version that the tool is written
for. The registry refuses a tool with another version."""
Render: TypeAlias = Callable[..., JsonValue]
"""Function `render(value, extra)` that returns a JSON value with its templates rendered. `extra` is optional and has
further template variables."""

_NOTHING_SET: Final = ToolSettings()
ConfigT = TypeVar("ConfigT", contravariant=True)
T = TypeVar("T")


class ToolLogger(Protocol):
    """A structured logger already bound to execution_id, command_id and step."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log a line that is shown only with LOG_LEVEL=debug.

        Args:
            event: name of the event in snake_case, without any value.
            fields: the values that vary, as JSON values.
        """

    def info(self, event: str, **fields: Any) -> Any:
        """Log a line about normal operation.

        Args:
            event: name of the event in snake_case, without any value.
            fields: the values that vary, as JSON values.
        """

    def warning(self, event: str, **fields: Any) -> Any:
        """Log a line that somebody should look at.

        Args:
            event: name of the event in snake_case, without any value.
            fields: the values that vary, as JSON values.
        """


class ToolControlPlane(Protocol):
    """The control-plane calls a tool may make, already pointed at the plane that issued the command."""

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Start a child execution.

        Args:
            body: `path`, `payload` and the other fields of protocol/executions.md#children.

        Returns:
            `execution_id` as text, `status`, and what else the plane answers.
        """

    async def playbook(self) -> Mapping[str, JsonValue]:
        """Return the registered playbook of the command's execution, with its templates unrendered."""

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        """Return the status of an execution, as its plane reports it (protocol/executions.md#children).

        Args:
            execution_id: id of a child, or of any other execution.
        """

    async def execution_detail(self, execution_id: int) -> Mapping[str, JsonValue]:
        """Return an execution with its `events`.

        Args:
            execution_id: id of a child, or of any other execution.
        """

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        """Store a value in the plane's result store (protocol/results.md#store).

        Args:
            name: name of the value within its execution.
            data: JSON in UTF-8.
            source_step: name of the step that made the value.

        Returns:
            The store's answer: `ref` is what `resolve_result` takes.
        """

    async def resolve_result(self, ref: str) -> JsonValue:
        """Return a value of the result store.

        Args:
            ref: `noetl://...`, as the store answered it.
        """

    async def get_var(self, name: str) -> JsonValue:
        """Return a variable of the execution, or None if it has no variable of this name.

        Args:
            name: name of the variable.
        """

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        """Set variables of the execution (protocol/executions.md#variables).

        Args:
            variables: name -> value.
        """


class Stop:
    """Request to a running tool to stop, with the reason. The request is never withdrawn, so a tool that checks late
    still sees it."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Set the reason, and so request that the tool stops.

        Args:
            reason: one of timeout, cancelled, shutdown. A later reason does not replace the first reason.
        """
        if self.reason is None:
            self.reason = reason

    def is_set(self) -> bool:
        return self.reason is not None


class ToolSecrets(Protocol):
    """Access to credentials, and the place to register secrets that a tool obtains by itself."""

    def credential(self, alias: str, /) -> Awaitable[Mapping[str, JsonValue]]:
        """Return the data of a credential.

        Args:
            alias: name of the credential on the control plane.

        Returns:
            The fields of the credential: {"host": ..., "password": ...}.

        Raises:
            CredentialError: the plane has no such alias.
        """

    def keep(self, text: str, /) -> bool | None:
        """Register a secret that the tool obtained by itself. The worker then redacts the secret from results, errors,
        logs and progress.

        Call this at once with every such secret.

        Args:
            text: a fetched token, a generated password. Secrets that `credential` returned are registered already.

        Returns:
            False if the text is too short or too common to be told from ordinary data. Such a text is not redacted.
        """


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolCommand:
    """Identity of the running command. All tasks of a step's task list run in one command and share this object."""

    execution_id: int
    command_id: CommandId
    step: str
    attempt: int
    server_url: str
    worker_id: str
    form: ToolForm
    """The result format of NoETL's own worker for this plane. NoETL's Rust and Python workers return different data for
    some configs. A tool returns the data of this plane's worker, because the plane's playbooks read that data."""


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolValues:
    """Variables that a tool's templates can name, and the function that renders templates with them."""

    variables: Mapping[str, JsonValue]
    input: Mapping[str, JsonValue]
    render: Render
    """`render(value, extra)` renders the templates in a JSON value with the variables, and with `extra` if given. A
    template inside an inserted value is not rendered."""
    undefined_is_error: bool = False
    """True if `render` raises for an undefined variable. A tool with a template engine of its own must raise too."""


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolWorker:
    """The services of the worker that a tool may use."""

    control_plane: ToolControlPlane
    run_tool: Callable[..., Awaitable[ToolResult]]
    """`run_tool(kind, config, context)` runs a tool of another kind with an unrendered config. Task sequences use this
    function. The context is this tool's own, or a `dataclasses.replace` copy with other values."""
    fields_of: Callable[[str], frozenset[str]]
    """Function that returns the field names of a tool kind's config, or raises UnknownTool if the worker lacks the
    kind. Task sequences need the names: `args` is a field of `container`, but means `input` for other kinds."""
    check_tool: Callable[[str, Mapping[str, JsonValue], ToolContext], None]
    """`check_tool(kind, config, context)` raises the error with which `run_tool` would refuse the config. A config with
    templates is not checked, since the values of the templates are not known yet. A task sequence checks all its tasks
    before the first task starts."""
    report_progress: Callable[[Mapping[str, JsonValue]], None]
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    """`with context.worker.waiting():` frees the command's slot while the command waits for other commands. If waiting
    parents kept their slots, they could fill all slots, and no child could start."""
    trace_headers: Callable[[], Mapping[str, str]] = dict
    """Function that returns the headers `traceparent` and `tracestate` of the tool's span. The result is empty if
    commands are not traced."""

    def with_trace(self, headers: Mapping[str, T]) -> dict[str, T | str]:
        """Return `headers` with the trace headers of the tool's span added, for a request that the tool sends.

        Args:
            headers: the headers from the playbook. A header here replaces the trace header of the same name, in upper
                or lower case.
        """
        given = {name.lower() for name in headers}
        carried = {name: value for name, value in self.trace_headers().items() if name not in given}
        return {**carried, **headers}

    def trace_environment(self) -> dict[str, str]:
        """Return the environment variables TRACEPARENT and TRACESTATE of the tool's span. A program started with them
        continues the trace."""
        return {name.upper(): value for name, value in self.trace_headers().items()}


@dataclass(slots=True)  # not frozen: creating it and its groups takes a tenth of a fast command's time
class ToolContext:
    """The data and services of the worker for one tool call. A tool must not change a context."""

    kind: str
    timeout_s: float | None
    """Seconds left for the command; None: no limit. After this time the worker cancels the asyncio task that runs the
    tool. The tool only has to clean up in `finally`: kill its process group, roll back."""
    stop: Stop
    logger: ToolLogger
    command: ToolCommand
    values: ToolValues
    secrets: ToolSecrets
    worker: ToolWorker
    settings: ToolSettings = _NOTHING_SET
    """The operator's settings for tools: directories, hosts, limits, secrets by name."""

    def with_render(self, render: Render) -> ToolContext:
        """Return a copy of this context with another `render` function, for example to leave some values unrendered.

        Args:
            render: `render(value, extra)` returns a JSON value with its templates rendered, or some left as they are.
        """
        return replace(self, values=replace(self.values, render=render))


@runtime_checkable
class Tool(Protocol[ConfigT]):
    """A tool kind: the class that an integrator writes for a new kind.

    `kind`: the registry key. `config_model`: a dataclass that mashumaro can decode. Its field names are the canonical
    names of protocol/tasks.md#fields. Its `__post_init__` raises ConfigurationError (or ValueError) if the rendered
    values alone are wrong. The worker then refuses the command before reporting `command.started`. Checks that need a
    credential, a file or the worker's environment belong in `run`.

    A tool may also have these attributes and methods:

    * `aliases`: other kinds that mean this tool;
    * `field_aliases`: other spelling -> canonical field name;
    * `raw_fields`: fields that are not rendered before the tool runs (a sequence renders each task when the task
      starts);
    * `inline = True`: `run` never waits and takes no time, so the worker awaits `run` without a task or timeout;
    * `async def aclose(self)`: closes the resources that the tool keeps open between calls;
    * `warm_up(self)`: starts, on the event loop, the resources that the tool's first command would wait for;
    * `check(config, context)`: raises ConfigurationError for a mistake in the decoded config that only `context` shows,
      such as a task that another tool refuses;
    * `time_needed(config)`: minimum seconds for a config without a timeout; replaces a shorter default of the worker;
    * `ignored(config)`: texts or ConfigurationErrors about parts of the config that the tool does not read; the worker
      reports these parts like unknown fields;
    * `field_schemas`: field -> JSON Schema, where the schema made from the field's type is too general;
    * `requires`: module -> how to install the module; `noetl-worker tools` lists the missing modules;
    * `imports`: modules that the worker imports in a thread before the kind's first command.
    """

    kind: ClassVar[str]
    config_model: ClassVar[type]

    async def run(self, config: ConfigT, context: ToolContext) -> ToolResult:
        """Run the tool once.

        Args:
            config: an instance of `config_model`, rendered and checked.
            context: the command, and what the worker does for the tool.

        Returns:
            The result. Its status is `error` for a failure that the playbook may handle: an exit code, an HTTP status.

        Raises:
            ToolError: a bad config, or a server that cannot be reached.
        """
