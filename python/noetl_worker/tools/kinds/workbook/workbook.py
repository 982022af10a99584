"""Kind `workbook`: runs a tool that the playbook defines once, under `workbook`, for several steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ControlPlaneError
from noetl_worker.models.spellings import input_names
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.error_kinds import plane_failure

_BESIDE_A_KIND: Final = frozenset({"name", "tool", "type", "desc", "description", "title"})
"""Fields of a workbook entry such as `{name: load, tool: python, code: ...}` that describe the entry itself. All other
fields go to the tool."""


@dataclass(frozen=True, slots=True)
class WorkbookConfig:
    """Runs an entry of the playbook's `workbook`, found by the entry's name.

    A command has only the name of the entry. The worker reads the playbook from the control plane's catalog, in the
    version that is being executed. Templates in the entry see the same values as a step's templates. They also see each
    input value under the value's own name.
    """

    name: str | None = None
    """Name of the workbook entry. Some control planes put the task's label into this field; use `task` instead
    on such a plane."""
    task: str | None = None
    """Name of the entry; wins over `name`."""
    input: dict[str, Any] = field(default_factory=dict)
    """Values for the entry's templates and code; they win over the entry's own input."""
    timeout: float | None = None
    """Maximum run time of the entry in seconds; absent: the command's remaining time. The entry's own timeout, if
    shorter, ends the entry earlier."""

    def __post_init__(self) -> None:
        if not self.entry:
            raise ConfigurationError(
                "field 'name' (or task) is missing: give the name of an entry in the playbook's workbook",
                field="name",
                reason="missing",
            )

    @property
    def entry(self) -> str:
        return self.task or self.name or ""


class WorkbookTool:
    """Tool of kind `workbook`, which runs the tool of a named entry in the playbook's `workbook` section. The result
    and the failures are those of the entry's tool."""

    kind: ClassVar[str] = "workbook"
    config_model: ClassVar[type] = WorkbookConfig
    requires: ClassVar[Mapping[str, str]] = {"yaml": "noetl-worker[local] on the Rust plane"}

    async def run(self, config: WorkbookConfig, context: ToolContext) -> ToolResult:
        entry = _named(await _playbook(context), config.entry)
        kind, tool = _entry_tool(config.entry, entry)
        inputs = input_names(context.worker.fields_of(kind))
        own = {key: value for at in (entry, tool) for name in inputs for key, value in fields_of(at.get(name)).items()}
        local = {**{name: context.values.render(value) for name, value in own.items()}, **config.input}

        def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
            if value is local:  # rendered above, so its values are data now
                return local
            return context.values.render(value, {**local, **(extra or {})})

        values = dataclasses.replace(
            context.values, variables={**context.values.variables, **local}, input=local, render=render
        )
        inner = dataclasses.replace(context, kind=kind, values=values)
        others = {*inputs, *(_BESIDE_A_KIND if tool is entry else ("kind",))}
        fields = {name: value for name, value in tool.items() if name not in others}
        return await context.worker.run_tool(kind, {**fields, "input": local} if local else fields, inner)


async def _playbook(context: ToolContext) -> Mapping[str, JsonValue]:
    try:
        return await context.worker.control_plane.playbook()
    except ControlPlaneError as error:
        raise plane_failure(f"workbook: the playbook cannot be read from the catalog: {error}", error) from error


def _named(playbook: Mapping[str, JsonValue], name: str) -> Mapping[str, JsonValue]:
    """Return the entry of this name. Raises ConfigurationError if there is no such entry; the error names the existing
    entries."""
    given = playbook.get("workbook")
    entries = [entry for entry in given if isinstance(entry, Mapping)] if isinstance(given, list) else []
    found = next((entry for entry in entries if entry.get("name") == name), None)
    if found is None:
        there = ", ".join(repr(entry.get("name")) for entry in entries) or "none"
        raise ConfigurationError(f"workbook: the playbook's workbook has no entry {name!r}; it has: {there}")
    return found


def _entry_tool(name: str, entry: Mapping[str, JsonValue]) -> tuple[str, Mapping[str, JsonValue]]:
    """Return the kind of an entry's tool, and the fields of the tool. The entry has `tool: {kind: python, code: ...}`,
    or `tool: python` with the fields beside `tool`."""
    given = entry.get("tool", entry.get("type"))
    tool = given if isinstance(given, Mapping) else entry
    kind = tool.get("kind") if isinstance(given, Mapping) else given
    if not isinstance(kind, str) or not kind:
        raise ConfigurationError(
            f"workbook: entry {name!r} needs 'tool' with one 'kind'; put a list of tools into a playbook of its own"
        )
    if kind == "workbook":
        raise ConfigurationError(
            f"workbook: entry {name!r} may not be of kind workbook itself; in the step, name the entry that should run"
        )
    if _reads_keychain(tool):
        raise ConfigurationError(
            f"workbook: entry {name!r} reads the keychain, but only the fields of a step may read it: "
            "use 'auth' in the entry, or give the value as the step's 'input'"
        )
    return kind, tool


def _reads_keychain(value: JsonValue) -> bool:
    if isinstance(value, str):
        return "{" in value and "keychain" in value
    if isinstance(value, Mapping):
        return any(map(_reads_keychain, value.values()))
    return isinstance(value, list) and any(map(_reads_keychain, value))
