"""What a tool is, and the only things it may ask of the worker.

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
"""Of what is in this file. A tool names the one that it is written for (`contract`), and is refused by another."""
Render: TypeAlias = Callable[..., JsonValue]

_NOTHING_SET: Final = ToolSettings()
ConfigT = TypeVar("ConfigT", contravariant=True)
T = TypeVar("T")


class ToolLogger(Protocol):
    """A structured logger already bound to execution_id, command_id and step."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log a line that is shown with LOG_LEVEL=debug alone.

        Args:
            event: a name in snake_case, the same for each line of its sort.
            fields: what varies; JSON values.
        """

    def info(self, event: str, **fields: Any) -> Any:
        """Log a line of the ordinary run of things.

        Args:
            event: as of `debug`.
            fields: as of `debug`.
        """

    def warning(self, event: str, **fields: Any) -> Any:
        """Log a line that somebody should look at.

        Args:
            event: as of `debug`.
            fields: as of `debug`.
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
        """The playbook that the command is of, as it was registered: nothing in it is rendered."""

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        """How an execution stands, as its plane says it (protocol/executions.md#children).

        Args:
            execution_id: of a child, or of any other execution.
        """

    async def execution_detail(self, execution_id: int) -> Mapping[str, JsonValue]:
        """An execution with its `events`.

        Args:
            execution_id: of a child, or of any other execution.
        """

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Mapping[str, JsonValue]:
        """Store a value in the plane's result store (protocol/results.md#store).

        Args:
            name: of the value, within its execution.
            data: JSON in UTF-8.
            source_step: the step that it comes from.

        Returns:
            The store's answer: `ref` is what `resolve_result` takes.
        """

    async def resolve_result(self, ref: str) -> JsonValue:
        """A value of the result store.

        Args:
            ref: `noetl://...`, as the store answered it.
        """

    async def get_var(self, name: str) -> JsonValue:
        """A variable of the execution; None where it has none of this name.

        Args:
            name: of the variable.
        """

    async def set_vars(self, variables: Mapping[str, JsonValue]) -> None:
        """Set variables of the execution (protocol/executions.md#variables).

        Args:
            variables: name -> value.
        """


class Stop:
    """Why a running tool must stop: a level that stays set (an edge can be missed)."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Ask for the stop.

        Args:
            reason: one of timeout, cancelled, shutdown. The first one stays.
        """
        if self.reason is None:
            self.reason = reason

    def is_set(self) -> bool:
        return self.reason is not None


class ToolSecrets(Protocol):
    """Secrets that a tool asks for, and those that it has found."""

    def credential(self, alias: str, /) -> Awaitable[Mapping[str, JsonValue]]:
        """The data of a credential.

        Args:
            alias: its name on the control plane.

        Returns:
            Its fields: {"host": ..., "password": ...}.

        Raises:
            CredentialError: the plane has no such alias.
        """

    def keep(self, text: str, /) -> bool | None:
        """Call it at once with every secret that the tool obtains by itself: from then on it is taken out of results,
        errors, logs and progress, wherever it appears.

        Args:
            text: a fetched token, a generated password. What `credential` gave is known already.

        Returns:
            False: the text is too short or too common to be distinguished from data, and stays in results.
        """


@dataclass(slots=True)  # not frozen, as ToolContext
class ToolCommand:
    """Which command it is, the same for each task of a list."""

    execution_id: int
    command_id: CommandId
    step: str
    attempt: int
    server_url: str
    worker_id: str
    form: ToolForm
    """What the own worker of this command's plane gives for a tool. Playbooks are written for it: where the two workers
    give different data for the same config, a tool gives the one that this plane's playbooks read."""


@dataclass(slots=True)  # not frozen, as ToolContext
class ToolValues:
    """What templates see."""

    variables: Mapping[str, JsonValue]
    input: Mapping[str, JsonValue]
    render: Render
    """Renders a JSON value against the variables (plus `extra`); values put in are never scanned again."""
    undefined_is_error: bool = False
    """Whether `render` takes an undefined variable for an error; a tool that renders by itself keeps to it."""


@dataclass(slots=True)  # not frozen, as ToolContext
class ToolWorker:
    """What the worker does for a tool."""

    control_plane: ToolControlPlane
    run_tool: Callable[..., Awaitable[ToolResult]]
    """`run_tool(kind, config, context)` runs another kind with an unrendered config, for sequences; the context is this
    one, or `dataclasses.replace` of it with other values."""
    fields_of: Callable[[str], frozenset[str]]
    """The fields of a kind's config, for sequences: `args` is a container's own and elsewhere another spelling of
    `input`. Raises UnknownTool."""
    check_tool: Callable[[str, Mapping[str, JsonValue], ToolContext], None]
    """`check_tool(kind, config, context)` raises what `run_tool` would refuse the config with, so far as that can be
    known without its templates: a sequence asks for each of its tasks before the first one changes anything."""
    report_progress: Callable[[Mapping[str, JsonValue]], None]
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    """`with context.worker.waiting():` around a wait for other commands: the slot is free meanwhile. Without it,
    parents that wait for their children fill all slots, and no child ever starts."""
    trace_headers: Callable[[], Mapping[str, str]] = dict
    """`traceparent` and `tracestate` of the tool's span; nothing where commands are not traced."""

    def with_trace(self, headers: Mapping[str, T]) -> dict[str, T | str]:
        """Headers for a request of the tool, with those that carry the trace on.

        Args:
            headers: the author's own; they win, whatever their case.
        """
        given = {name.lower() for name in headers}
        carried = {name: value for name, value in self.trace_headers().items() if name not in given}
        return {**carried, **headers}

    def trace_environment(self) -> dict[str, str]:
        """TRACEPARENT and TRACESTATE, as programs that know traces read them."""
        return {name.upper(): value for name, value in self.trace_headers().items()}


@dataclass(slots=True)  # not frozen: its making, with its groups, is a tenth of the time of a fast command
class ToolContext:
    """One tool call's view of the worker; a tool changes nothing of it."""

    kind: str
    timeout_s: float | None
    """The time left for the command, None when unlimited; the worker cancels the task when it is over, so a tool only
    has to clean up in `finally` (kill its process group, roll back)."""
    stop: Stop
    logger: ToolLogger
    command: ToolCommand
    values: ToolValues
    secrets: ToolSecrets
    worker: ToolWorker
    settings: ToolSettings = _NOTHING_SET
    """What the operator has set for tools: directories, hosts, limits, secrets by name."""

    def with_render(self, render: Render) -> ToolContext:
        """A copy with another way to render.

        Args:
            render: see `ToolValues.render`.
        """
        return replace(self, values=replace(self.values, render=render))


@runtime_checkable
class Tool(Protocol[ConfigT]):
    """A tool kind.

    `kind`: the registry key. `config_model`: a dataclass that mashumaro can decode; field names are the canonical ones
    of protocol/tasks.md#fields. Its `__post_init__` raises ConfigurationError (or ValueError) for whatever is seen to
    be wrong from the rendered values alone: the command is then refused before it is reported as started. What a
    credential, a file or the worker's environment decides is for `run`.

    Not needed, but used where a tool has them: `aliases`, other kinds that mean the same tool; `field_aliases`, other
    spelling -> canonical name; `raw_fields`, fields that are not rendered before the tool runs (a sequence renders its
    own tasks one by one); `inline = True` says that `run` waits for nothing and takes no time: it is awaited as it is,
    with no task and no timeout; `async def aclose(self)` closes what it keeps open between calls; `check(config,
    context)` raises ConfigurationError for what a decoded config asks of other tools; `time_needed(config)` gives the
    seconds that a config without a timeout needs at least, over the worker's default; `ignored(config)` gives texts or
    ConfigurationErrors about parts of a decoded config that nothing reads, reported as unknown fields are;
    `field_schemas` (field -> JSON Schema) says more of a field than its type does; `requires` (module -> how to install
    it) lets `noetl-worker tools` say what is missing; `imports` names those that are imported with the kind, in a
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
            ToolError: bad config, nothing to talk to.
        """
