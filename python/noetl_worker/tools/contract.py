"""The tool contract: the protocol of a tool, and all that a tool may ask of the worker.

A tool imports this module, `models`, `errors` and its own library; everything else reaches it through the
`ToolContext` it is handed. An integrator's tool is written against this file alone.
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
"""Version of the contract in this file. A tool names the version it is written for (`contract`); another is refused."""
Render: TypeAlias = Callable[..., JsonValue]
"""Function that renders the templates in a JSON value; `ToolValues.render` has its arguments."""

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
            event: as in `debug`.
            fields: as in `debug`.
        """

    def warning(self, event: str, **fields: Any) -> Any:
        """Log a line that somebody should look at.

        Args:
            event: as in `debug`.
            fields: as in `debug`.
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
        """Return the registered playbook of the command's execution, with nothing rendered."""

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
    """The reason why a running tool must stop. Once set it stays set, so that a tool cannot miss it."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Set the reason, and so request that the tool stops.

        Args:
            reason: one of timeout, cancelled, shutdown. The first one stays.
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
            alias: its name on the control plane.

        Returns:
            Its fields: {"host": ..., "password": ...}.

        Raises:
            CredentialError: the plane has no such alias.
        """

    def keep(self, text: str, /) -> bool | None:
        """Register a secret that the tool obtained by itself. It is then redacted from results, errors, logs and
        progress.

        Call this at once with every such secret.

        Args:
            text: a fetched token, a generated password. Secrets that `credential` returned are registered already.

        Returns:
            False: the text is too short or too common to be distinguished from data, and stays in results.
        """


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolCommand:
    """The identity of the command, shared by all tasks of a list."""

    execution_id: int
    command_id: CommandId
    step: str
    attempt: int
    server_url: str
    worker_id: str
    form: ToolForm
    """The result form of the plane's own worker. Playbooks are written for that worker: where the two published workers
    give different data for the same config, a tool gives the data that this plane's playbooks read."""


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolValues:
    """The values that templates can name."""

    variables: Mapping[str, JsonValue]
    input: Mapping[str, JsonValue]
    render: Render
    """Function that renders a JSON value against the variables (plus `extra`). Inserted values are never scanned for
    templates again."""
    undefined_is_error: bool = False
    """True if `render` raises for an undefined variable. A tool that renders by itself must do the same."""


@dataclass(slots=True)  # not frozen, for the reason given at ToolContext
class ToolWorker:
    """The services of the worker that a tool may use."""

    control_plane: ToolControlPlane
    run_tool: Callable[..., Awaitable[ToolResult]]
    """`run_tool(kind, config, context)` runs another kind with an unrendered config, for sequences. The context is this
    tool's own context, or a `dataclasses.replace` copy of it with other values."""
    fields_of: Callable[[str], frozenset[str]]
    """Function that returns the fields of a kind's config, for sequences: `args` is a field of `container`, but for
    other kinds a spelling of `input`. Raises UnknownTool."""
    check_tool: Callable[[str, Mapping[str, JsonValue], ToolContext], None]
    """`check_tool(kind, config, context)` raises the error with which `run_tool` would refuse the config, as far as
    that is known before its templates are rendered. A sequence checks all its tasks before the first one changes
    anything."""
    report_progress: Callable[[Mapping[str, JsonValue]], None]
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    """`with context.worker.waiting():` frees the command's slot during a wait for other commands. Without it, parents
    that wait for their children fill all slots, and no child ever starts."""
    trace_headers: Callable[[], Mapping[str, str]] = dict
    """Function that returns `traceparent` and `tracestate` of the tool's span; nothing if commands are not traced."""

    def with_trace(self, headers: Mapping[str, T]) -> dict[str, T | str]:
        """Return headers for a request of the tool, with the headers that propagate its trace.

        Args:
            headers: the author's own; they win, whatever their case.
        """
        given = {name.lower() for name in headers}
        carried = {name: value for name, value in self.trace_headers().items() if name not in given}
        return {**carried, **headers}

    def trace_environment(self) -> dict[str, str]:
        """Return TRACEPARENT and TRACESTATE, the variables that programs with tracing read."""
        return {name.upper(): value for name, value in self.trace_headers().items()}


@dataclass(slots=True)  # not frozen: creating it and its groups takes a tenth of a fast command's time
class ToolContext:
    """The worker as one tool call sees it. A tool must not change anything in it."""

    kind: str
    timeout_s: float | None
    """Time left for the command, None when unlimited. The worker cancels the task when this time is over, so a tool
    only has to clean up in `finally` (kill its process group, roll back)."""
    stop: Stop
    logger: ToolLogger
    command: ToolCommand
    values: ToolValues
    secrets: ToolSecrets
    worker: ToolWorker
    settings: ToolSettings = _NOTHING_SET
    """The operator's settings for tools: directories, hosts, limits, secrets by name."""

    def with_render(self, render: Render) -> ToolContext:
        """Return a copy with another `render`.

        Args:
            render: see `ToolValues.render`.
        """
        return replace(self, values=replace(self.values, render=render))


@runtime_checkable
class Tool(Protocol[ConfigT]):
    """A tool kind.

    `kind`: the registry key. `config_model`: a dataclass that mashumaro can decode; field names are the canonical ones
    of protocol/tasks.md#fields. Its `__post_init__` raises ConfigurationError (or ValueError) for whatever is seen to
    be wrong from the rendered values alone: the command is then refused before it is reported as started. Checks that
    need a credential, a file or the worker's environment belong in `run`.

    Not needed, but used where a tool has them: `aliases`, other kinds that mean the same tool; `field_aliases`, other
    spelling -> canonical name; `raw_fields`, fields that are not rendered before the tool runs (a sequence renders its
    own tasks one by one); `inline = True` says that `run` waits for nothing and takes no time: it is awaited as it is,
    with no task and no timeout; `async def aclose(self)` closes what it keeps open between calls;
    `warm_up(self)` starts now, on the loop, what its first command would wait for; `check(config,
    context)` raises ConfigurationError for what a decoded config asks of other tools; `time_needed(config)` gives the
    seconds that a config without a timeout needs at least, over the worker's default; `ignored(config)` gives texts or
    ConfigurationErrors about parts of a decoded config that nothing reads, reported as unknown fields are;
    `field_schemas` (field -> JSON Schema) says more of a field than its type does; `requires` (module -> how to install
    it) lets `noetl-worker tools` say what is missing; `imports` names the modules that are imported with the kind, in a
    thread, before its first command.
    """

    kind: ClassVar[str]
    config_model: ClassVar[type]

    async def run(self, config: ConfigT, context: ToolContext) -> ToolResult:
        """Do the work once.

        Args:
            config: an instance of `config_model`, rendered and checked.
            context: the command, and what the worker does for the tool.

        Returns:
            Status error for a failure the playbook may handle: an exit code, an HTTP status.

        Raises:
            ToolError: a bad config, or a server that cannot be reached.
        """
