"""The registry of tools, and a single call of a tool: `registry.prepare(kind, config, context)`, `prepared.run()`.

`prepare` checks a config before `command.started` is reported: spellings, templates, types, unknown fields. Built-in
tools are imported at first use; a plug-in that does not load causes one warning at start and a clear error for its
kind, and never ends the worker.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError, ToolError, UnknownTool
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools import fields, requirements
from noetl_worker.tools.built_in import ALIASES, BUILT_IN
from noetl_worker.tools.contract import CONTRACT_VERSION, Stop, Tool, ToolContext, ToolSettings
from noetl_worker.tools.deadline import TIMEOUTS, effective_timeout, given_timeouts, time_left, timeout_parts
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.kind_rules import KindRules
from noetl_worker.tools.plain_configs import Checked, PlainConfigs
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.scope import CallScope

__all__ = ["ENTRY_POINT_GROUP", "BrokenPlugin", "PreparedTool", "Registry"]

ENTRY_POINT_GROUP: Final = "noetl_worker.tools"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plug-in (entry point) that could not be loaded as a tool."""

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"tool {self.name!r} of {self.distribution} does not load: {self.reason}"


@dataclass(slots=True)
class PreparedTool:
    """A tool call whose config has been checked. The call has had no effect yet."""

    kind: str
    tool: Tool[Any]
    config: Any
    context: ToolContext
    timeout_s: float | None
    """Timeout of the call in seconds: the shorter of the config's shortest timeout and the context's remaining time."""
    warnings: tuple[ConfigurationError, ...] = ()
    """Warnings about parts of the config that the worker does not read."""
    own_timeout_s: float | None = None
    """The timeout in the config, in seconds; None if the config has no timeout."""
    needed_s: float = 0.0
    """Seconds that the tool needs, such as the sum of the timeouts of a sequence's tasks. A worker's shorter default
    timeout is raised to this number. A timeout in the config is not raised."""
    is_inline: bool = False
    """True if the tool declares that its `run` never waits. Such a call needs neither a task nor a timeout."""

    def limit(self, default_s: float, hard_s: float) -> None:
        """Apply a worker's timeouts to the call and its context.

        Args:
            default_s: seconds if the config has no timeout and the tool does not need more.
            hard_s: maximum seconds, whatever the config says.
        """
        if (limit_s := self.own_timeout_s) is None:
            limit_s = default_s if self.needed_s <= default_s else self.needed_s
        self.timeout_s = self.context.timeout_s = min(limit_s, hard_s)

    async def run(self) -> ToolResult:
        """Run the call once. Raises ToolError, or whatever a plug-in raises. The result always has `duration_ms`."""
        started, result = time.monotonic(), await self.call()
        return result if result.duration_ms is not None else result.lasting(round((time.monotonic() - started) * 1000))

    async def call(self) -> ToolResult:
        """Run the call once, for a caller that measures the time: `duration_ms` is set only if the tool sets it.

        Raises:
            ToolError: the tool raised this error, or called `sys.exit`.
            ConfigurationError: the tool returned something other than a ToolResult.
        """
        context = self.context
        if context.timeout_s != self.timeout_s:
            context = dataclasses.replace(context, timeout_s=self.timeout_s)
        try:
            result = await self.tool.run(self.config, context)
        except SystemExit as error:  # SystemExit would end the loop, and with it the worker and all its commands
            raise ToolError(
                f"{self.kind}: the tool called exit with {error.code!r}; let it return", kind=self.kind
            ) from error
        if isinstance(result, ToolResult):
            return result
        raise ConfigurationError(f"{self.kind}: run() gave {type(result).__name__}, a ToolResult is needed")

    async def run_in_time(self) -> ToolResult:
        """Run a call that another tool makes. Interrupt the call if it runs longer than its own timeout plus a grace
        period. An interrupted call gives a timeout, or the partial output that its tool still returns.
        """
        if self.timeout_s is None or self.is_inline:
            return await self.run()
        stop = _InnerStop(self.context.stop)
        call = dataclasses.replace(self, context=dataclasses.replace(self.context, stop=stop))
        return await CallScope(stop, self.timeout_s).run(call.run())


class _InnerStop(Stop):
    """The request to stop one call that a command's tool makes to another tool. A request to stop the command stops
    this call too. The call's own timeout stops only this call."""

    def __init__(self, outer: Stop) -> None:
        super().__init__()
        self._outer = outer

    @property
    def reason(self) -> str | None:
        return self._own or self._outer.reason

    @reason.setter
    def reason(self, value: str | None) -> None:
        self._own = value


class _Given(NamedTuple):
    """A registered tool, and two facts that the registry determines once per tool instead of at each call: whether the
    tool's `run` never waits, and whether the tool has a check of its own."""

    tool: Tool[Any]
    is_inline: bool
    has_check: bool


class Registry:
    """The tools of a worker, by kind and alias.

    Args:
        tools: further tool instances. An instance replaces a built-in tool or plug-in of its kind, and an earlier
            instance.
        plugins: whether to load the `noetl_worker.tools` entry points.
        confinement: restrictions for the built-in tools that run code.
        settings: the operator's settings for tools, handed to each tool in its context.
    """

    def __init__(
        self,
        tools: Iterable[Tool[Any]] = (),
        *,
        plugins: bool = True,
        confinement: Confinement = UNCONFINED,
        settings: ToolSettings | None = None,
    ) -> None:
        self.confinement = confinement
        self.settings: Final = settings or ToolSettings()
        self._rules = KindRules()
        self.broken: list[BrokenPlugin] = []
        self._plain = PlainConfigs()
        self._tools: dict[str, Tool[Any]] = {}
        self._given: dict[str, _Given] = {}  # tools that were looked up and that the rules allow
        if plugins:
            for point in entry_points(group=ENTRY_POINT_GROUP):
                self._load_plugin(point)
        for tool in tools:
            self.register(tool)

    def register(self, tool: Tool[Any]) -> None:
        """Add a tool under its kind and aliases.

        Args:
            tool: a tool instance. It replaces the registered tool of the same kind.

        Raises:
            ConfigurationError: an attribute of the tool is missing or wrong.
        """
        for name in _names(tool):
            self._tools[name] = tool
        self._plain, self._given = PlainConfigs(), {}

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of all built-in tools and loaded plug-ins, sorted, without aliases."""
        return tuple(sorted({*BUILT_IN, *(tool.kind for tool in self._tools.values())}))

    def kinds_that_run(self) -> tuple[str, ...]:
        """Return the kinds that the worker may run by the operator's rules (`limit`)."""
        return tuple(kind for kind in self.kinds() if self._rules.refusal(kind) is None)

    def knows(self, name: str) -> bool:
        """Return True if a tool has the kind or alias `name`, even if its plug-in does not load.

        Args:
            name: as a playbook has it.
        """
        known = name in BUILT_IN or name in ALIASES or name in self._tools
        return known or any(plugin.name == name for plugin in self.broken)

    def limit(self, only: Iterable[str], denied: Iterable[str]) -> None:
        """Set the kinds that may run. `get` and `prepare` refuse all other kinds from now on.

        Args:
            only: kinds or aliases that run; empty: all.
            denied: kinds or aliases that do not run.
        """
        self._rules = KindRules(frozenset(map(self._own_name, only)), frozenset(map(self._own_name, denied)))
        self._given.clear()

    def _own_name(self, name: str) -> str:
        tool = self._tools.get(name)
        return tool.kind if tool is not None else ALIASES.get(name, name)

    def get(self, kind: str) -> Tool[Any]:
        """Return the tool of a kind.

        Args:
            kind: a kind or an alias.

        Raises:
            UnknownTool: no tool has this kind; the message lists the known kinds.
            ConfigurationError: the kind is refused (`limit`), or its plug-in does not load.
        """
        return self._get(kind).tool

    def _get(self, kind: str) -> _Given:
        if kind in self._given:
            return self._given[kind]
        if (refusal := self._rules.refusal(self._own_name(kind))) is not None:
            raise ConfigurationError(refusal)
        tool = self._tools[kind] if kind in self._tools else self._built_in(ALIASES.get(kind, kind))
        given = self._given[kind] = _Given(tool, bool(getattr(tool, "inline", False)), hasattr(tool, "check"))
        return given

    async def load(self, kind: str) -> None:
        """Import the tool of a kind before its first use, in a thread: the import could block the event loop for 0.2 s.

        Args:
            kind: a kind or an alias.
        """
        if kind not in self._tools and (name := ALIASES.get(kind, kind)) in BUILT_IN:
            await asyncio.to_thread(requirements.load, BUILT_IN[name])

    def warm_up(self, kinds: Iterable[str]) -> None:
        """Start the processes and connections of some kinds now, so that their first commands need not wait.

        Args:
            kinds: kinds to warm up. Unknown kinds and kinds that may not run are skipped.
        """
        for kind in {*kinds} & {*self.kinds_that_run()}:
            if (start := getattr(self.get(kind), "warm_up", None)) is not None:
                start()

    def prepare(
        self,
        kind: str,
        raw_config: Mapping[str, JsonValue] | Sequence[JsonValue],
        context: ToolContext,
        *,
        has_secrets: Callable[[object], bool] | None = None,
    ) -> PreparedTool:
        """Check a config, render its templates, and return the prepared call.

        Args:
            kind: a kind or an alias.
            raw_config: as a playbook has it, unrendered.
            context: the values that templates see, and the time left.
            has_secrets: returns True if a config contains a secret. The result of the check is cached only if neither
                `raw_config` nor the checked config contains a secret. None: nothing is cached.

        Raises:
            UnknownTool: no such kind.
            ConfigurationError: a missing field, or one of another type.
            TemplateError: a template cannot be rendered; the message names its field.
        """
        tool, is_inline, has_check = self._get(kind)
        may_be_cached = has_secrets is not None and not has_secrets(raw_config) and not has_check
        key = self._plain.key(kind, raw_config) if may_be_cached else None
        checked = self._plain.get(key) if key is not None else None
        if checked is None:
            checked = self._checked(kind, tool, raw_config, context)
            if has_secrets is not None and not has_secrets(checked.config) and key is not None:
                self._plain.add(key, checked)
        timeout_s = time_left(checked.timeout_s, context)
        config, warnings, own_timeout_s, needed_s = checked
        return PreparedTool(kind, tool, config, context, timeout_s, warnings, own_timeout_s, needed_s, is_inline)

    def _checked(
        self,
        kind: str,
        tool: Tool[Any],
        raw_config: Mapping[str, JsonValue] | Sequence[JsonValue],
        context: ToolContext,
    ) -> Checked:
        raw = _with_timeout(kind, raw_config, tool, context)
        own_spellings = getattr(tool, "field_aliases", {})
        given, unknown = fields.canonical(kind, raw, tool.config_model, own_spellings)
        own = fields.field_names(tool.config_model)
        warnings = [fields.unknown_field(kind, name, own) for name in [*unknown, *_unread(raw, tool)]]
        if raw.get("retry") and "retry" not in _readable_names(tool):
            problem = f"retry is ignored for kind {kind}: write the step's tool as a list with a rule `do: retry`"
            warnings.append(ConfigurationError(problem, field="retry", tool=kind, reason="ignored"))
        if _has_rules(raw) and "tasks" not in own:
            problem = "spec.policy is ignored: rules work only in a list; make `tool` a list of this one task"
            warnings.append(ConfigurationError(problem, field="spec.policy", tool=kind, reason="ignored"))
        rendered = fields.rendered(kind, given, getattr(tool, "raw_fields", frozenset()), context.values.render)
        try:
            config = fields.decode(kind, tool.config_model, rendered, raw, own_spellings)
        except ConfigurationError as error:
            raise fields.with_misspelt(error, warnings) from error.__cause__
        if (check := getattr(tool, "check", None)) is not None:
            check(config, context)
        ignored = getattr(tool, "ignored", None)
        if ignored is not None:
            told = ignored(config)  # a plug-in may give texts
            warnings += [
                one if isinstance(one, ConfigurationError) else ConfigurationError(one, reason="ignored")
                for one in told
            ]
        needed = getattr(tool, "time_needed", None)
        return Checked(config, tuple(warnings), raw["timeout"], 0.0 if needed is None else needed(config))

    def fields_of(self, kind: str) -> frozenset[str]:
        """Return the names of the fields that a playbook can give in a kind's config, without other spellings. Raises
        UnknownTool.

        Args:
            kind: a kind or an alias.
        """
        return fields.field_names(self.get(kind).config_model)

    def check(self, kind: str, raw_config: Mapping[str, JsonValue], context: ToolContext) -> None:
        """Refuse a wrong config early, before the tool's turn to run. A config with templates is accepted unchecked,
        because the values of the templates are still unknown.

        Args:
            kind: a kind or an alias.
            raw_config: as a playbook has it, unrendered.
            context: the context in which the tool would run. A tool may have its own check, which reads the context.

        Raises:
            UnknownTool: no such kind.
            ConfigurationError: a missing field, or one of another type.
        """
        tool = self.get(kind)
        spellings = fields.field_spellings(tool.config_model, getattr(tool, "field_aliases", {}))
        later: frozenset[str] = getattr(tool, "raw_fields", frozenset())
        now = [value for name, value in raw_config.items() if spellings.get(name, name) not in later]
        if not has_template(now):
            self.prepare(kind, raw_config, context)

    async def run_tool(self, kind: str, raw_config: Mapping[str, JsonValue], context: ToolContext) -> ToolResult:
        """Check a tool's config and run the tool once. Tools call this method as `context.worker.run_tool`.

        Args:
            kind: a kind or an alias.
            raw_config: as a playbook has it, unrendered.
            context: the context in which the tool runs.

        Raises:
            UnknownTool, ConfigurationError, TemplateError: the config is refused, and the tool does not run.
            ToolError: the tool failed.
        """
        prepared = self.prepare(kind, raw_config, context)
        for warning in prepared.warnings:
            advice = "correct the field of that step which `problem` names"
            context.logger.warning("tool_config", kind=kind, problem=str(warning), advice=advice)
        return await prepared.run_in_time()

    async def aclose(self) -> None:
        """Close the resources that tools keep open between calls: HTTP connections, connection pools, and the warm
        processes from which commands are forked."""
        for tool in {id(tool): tool for tool in self._tools.values()}.values():
            close = getattr(tool, "aclose", None)
            if close is None:
                continue
            try:
                await close()
            except Exception:  # the other tools must be closed too, and a tool must not decide how the worker ends
                _log.exception("tool %r could not be closed; report this to the author of the tool", tool.kind)

    def _built_in(self, kind: str) -> Tool[Any]:
        target = BUILT_IN.get(kind)
        if target is None:
            broken = next((plugin for plugin in self.broken if plugin.name == kind), None)
            if broken is not None:
                raise ConfigurationError(str(broken))
            if kind in INSTEAD:
                raise UnknownTool(f"Tool not found: {kind} is not run by this worker: {INSTEAD[kind]}")
            known = self.kinds()
            guess = fields.nearest(kind, known) or "."
            raise UnknownTool(f"Tool not found: {kind}{guess} Known kinds: {', '.join(known)}")
        made = requirements.class_at(target)
        options: Mapping[str, Any] = {"confinement": self.confinement} if getattr(made, "is_confined", False) else {}
        tool: Tool[Any] = made(**options)
        self._tools[kind] = tool
        return tool

    def _load_plugin(self, point: EntryPoint) -> None:
        distribution = (
            f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
        )
        try:
            loaded: Any = point.load()
            tool: Any = loaded() if inspect.isclass(loaded) else loaded
            self._check_free(_names(tool))
        except Exception as error:  # a plug-in's import may raise anything
            broken = BrokenPlugin(point.name, distribution, f"{type(error).__name__}: {error}")
            self.broken.append(broken)
            _log.warning("%s", broken)
        else:
            self.register(tool)

    def _check_free(self, names: Iterable[str]) -> None:
        """Raise ConfigurationError if another tool already has one of the kinds or aliases in `names`."""
        if taken := [name for name in names if name in self._tools]:
            raise ConfigurationError(f"another plug-in has the kind {taken[0]!r} already; remove one of the two")
        if over := ", ".join(name for name in names if name in BUILT_IN or name in ALIASES):
            raise ConfigurationError(
                f"it would replace the built-in {over}; give its tool a kind and aliases of its own"
            )


def _names(tool: Tool[Any]) -> tuple[str, ...]:
    """Return the kind and aliases of a tool. Raises ConfigurationError for a missing or wrong attribute."""
    kind, model = getattr(tool, "kind", None), getattr(tool, "config_model", None)
    if not isinstance(kind, str) or not kind:
        raise ConfigurationError(f"{tool!r} is no tool: it has no `kind`; give its class one")
    if (contract := getattr(tool, "contract", CONTRACT_VERSION)) != CONTRACT_VERSION:
        raise ConfigurationError(
            f"tool {kind!r} is written for version {contract!r} of the tool contract, this worker has "
            f"{CONTRACT_VERSION}: install a version of its package that is written for {CONTRACT_VERSION}, or a "
            f"noetl-worker that has {contract!r}"
        )
    if not dataclasses.is_dataclass(model) or not isinstance(model, type):
        raise ConfigurationError(f"tool {kind!r}: `config_model` must be a dataclass, not {model!r}")
    if not inspect.iscoroutinefunction(getattr(tool, "run", None)):
        raise ConfigurationError(f"tool {kind!r}: `run` must be an async method")
    named = {*getattr(tool, "raw_fields", ()), *getattr(tool, "field_aliases", {}).values()}
    if not named <= fields.field_names(model):
        lacking = ", ".join(sorted(named - fields.field_names(model)))
        raise ConfigurationError(
            f"tool {kind!r}: its config_model has no field {lacking}, named in raw_fields or field_aliases"
        )
    return (kind, *getattr(tool, "aliases", ()))


def _readable_names(tool: Tool[Any]) -> frozenset[str]:
    own = fields.field_names(tool.config_model)
    return own.union(fields.field_spellings(tool.config_model, getattr(tool, "field_aliases", {})))


def _unread(raw: Mapping[str, JsonValue], tool: Tool[Any]) -> list[str]:
    """Return the names of misplaced fields, which this tool does not read: `case`, `cases`, `next`, and unknown fields
    under `spec`.

    The step's own `case` was already removed from `raw`, so a `case` in `raw` is misplaced.
    """
    names = [name for name in ("case", "cases", "next") if raw.get(name) and name not in _readable_names(tool)]
    if "spec" in fields.field_names(tool.config_model):
        return names
    known, spec = _readable_names(tool) | {*TIMEOUTS, "policy"}, fields_of(raw.get("spec"))
    return names + [f"spec.{name}" for name, value in spec.items() if name not in known and value is not None]


def _with_timeout(
    kind: str, raw_config: Mapping[str, JsonValue] | Sequence[JsonValue], tool: Tool[Any], context: ToolContext
) -> dict[str, JsonValue]:
    """Return the config as an object, with all its timeouts rendered and combined into one `timeout` in seconds.

    A config that is a list holds the tasks of a sequence. The tool's fields under `spec` move to the top, because
    playbooks of the Python plane write fields there (protocol/tasks.md#fields).
    """
    raw: Mapping[str, JsonValue] = raw_config if isinstance(raw_config, Mapping) else {"tasks": list(raw_config)}
    spec = fields_of(raw.get("spec"))
    times = given_timeouts(raw)
    rendered = context.values.render(times) if times else {}
    own = fields.field_names(tool.config_model)
    lifted = fields.lifted(raw, spec, tool.config_model, getattr(tool, "field_aliases", {}))
    parts = {name: limit for name, limit in timeout_parts(kind, rendered).items() if name in own}
    merged = {**parts, **raw, **lifted, "timeout": effective_timeout(kind, rendered)}
    merged.pop("timeout_seconds", None)
    return merged


def _has_rules(raw: Mapping[str, JsonValue]) -> bool:
    policy = fields_of(raw.get("spec")).get("policy")
    return bool(policy.get("rules")) if isinstance(policy, Mapping) else bool(policy)
