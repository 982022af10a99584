"""Lint rules NW2: mistakes in the fields of tools. The worker's own registry and config models check them."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from noetl_worker.authoring.dev.orchestration.playbook import known_kinds
from noetl_worker.authoring.dev.positions import Place
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.outline import Path, ToolPart, mapping, names_in, tool_parts, tool_policy
from noetl_worker.errors import ConfigurationError, TemplateError, did_you_mean
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools import fields, policy
from noetl_worker.tools.contract import Tool, ToolContext
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.memory_context import tool_context

_PART_OF_PATH: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_OF_TASK: Final = ("policy",)
_OF_STEP: Final = ("case", "cases")
"""Keys that may stand in a tool but belong to its step. The worker removes them before it reads the tool."""
_TEXT: Final = "a-text-that-a-template-gives"
_FILES: Final = (".yaml", ".yml")
_ADDRESSES: Final = ("url", "endpoint", "address")
_STAND_INS: Final[Mapping[Any, Any]] = {str: _TEXT, int: 1, float: 1.0, bool: False, dict: {}, list: []}
"""Dummy values by field type. They replace templates while a tool's fields are checked, as no real values exist yet."""


def check_tools(inspection: Inspected) -> None:
    context = tool_context(registry=inspection.registry)
    entries = names_in(inspection.document, "workbook")
    for part in tool_parts(inspection.document):
        if part.kind and isinstance(part.config["kind"], str) and not has_template(part.kind):
            _check_tool(inspection, part, context)
        if part.kind == "playbook":
            _check_child(inspection, part)
        if part.kind == "workbook":
            _check_entry(inspection, part, entries)


def _check_child(inspection: Inspected, part: ToolPart) -> None:
    path = part.config.get("path")
    if isinstance(path, str) and not has_template(path) and (path.endswith(_FILES) or path.startswith(("./", "../"))):
        message = f"playbook: '{path}' is a file: write `metadata.path` of the playbook in it"
        inspection.add("NW204", (*part.path, "path"), message, is_warning=True)


def _check_entry(inspection: Inspected, part: ToolPart, entries: Sequence[str]) -> None:
    """Report a `workbook` tool that names a workbook entry which does not exist.

    A task of a list names the entry in the field `task`, since its `name` is its own name. Other tools may use `name`.
    """
    field = "task" if part.config.get("task") or part.is_task else "name"
    name = part.config.get(field)
    if isinstance(name, str) and name and not has_template(name) and name not in entries:
        guess = fields.nearest(name, sorted(entries))
        message = f"workbook: the playbook's workbook has no entry '{name}'{guess}"
        inspection.add("NW204", (*part.path, field), message)


def _check_tool(inspection: Inspected, part: ToolPart, context: ToolContext) -> None:
    kind, place = part.kind, (*part.path, "kind")
    if not inspection.registry.knows(kind):
        if kind in INSTEAD:
            inspection.add("NW201", place, f"kind '{kind}' is not run by this worker: {INSTEAD[kind]}")
        else:
            known = sorted(known_kinds() | set(inspection.registry.kinds()))
            inspection.add("NW201", place, f"no tool is named '{kind}'{fields.nearest(kind, known)}")
        return
    try:
        tool = inspection.registry.get(kind)
    except ConfigurationError as error:
        inspection.add("NW201", place, str(error), is_warning=True)
        return
    if part.is_task:
        _check_policy(inspection, part)
    if kind != "task_sequence":  # its tasks are looked at one by one
        _FieldCheck.for_tool(inspection, part, tool).run(context)


def _check_policy(inspection: Inspected, part: ToolPart) -> None:
    path, given = tool_policy(part)
    try:
        rules = policy.parse_policy(part.label, given)
    except ConfigurationError as error:
        _add_policy_problem(inspection, path, error)
        return
    for problem in policy.find_unknown_jumps(rules, part.position, part.labels):
        _add_policy_problem(inspection, path, problem)
    for problem in policy.unknown_words(part.label, given):
        _add_policy_problem(inspection, path, problem, is_warning=True)


def _add_policy_problem(
    inspection: Inspected, path: Path, problem: ConfigurationError, *, is_warning: bool = False
) -> None:
    """Report a mistake in a tool's policy at its line and column in the playbook.

    The key `rules` is removed from the mistake's path if the policy is a bare list of rules, which has no such key.
    """
    inside = _field_path(problem.field)
    if inside[:1] == ("rules",) and not inspection.playbook.has((*path, "rules")):
        inside = inside[1:]
    place = inspection.playbook.key_place(_existing_part(inspection, path, inside))
    text = f"{problem.problem}{did_you_mean(problem.suggestion)}"
    inspection.add("NW206", place, text, is_warning=is_warning)


def _field_path(field: str) -> Path:
    """Split a field's dotted name into a path: `rules[0].then` gives ("rules", 0, "then")."""
    return tuple(int(index) if index else name for index, name in _PART_OF_PATH.findall(field))


def _existing_part(inspection: Inspected, path: Path, inside: Path) -> Path:
    """Return `path`, extended by keys of `inside` as long as the playbook has a value at the extended path.

    A mistake about a key that the playbook lacks is reported at the returned path, because a missing key has no line.

    Args:
        inside: the keys that lead from `path` to the mistake.
    """
    for part in inside:
        if not inspection.playbook.has((*path, part)):
            break
        path = (*path, part)
    return path


# ── fields ──────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True, slots=True)
class _FieldCheck:
    """The check of one tool's fields. It finds fields that the tool's config model refuses or ignores."""

    inspection: Inspected
    part: ToolPart
    tool: Tool[Any]
    config: Mapping[str, Any]
    """The tool's own fields, as written."""
    spellings: Mapping[str, str]
    templated: Set[str]
    """Names of the fields that contain templates."""

    @classmethod
    def for_tool(cls, inspection: Inspected, part: ToolPart, tool: Tool[Any]) -> _FieldCheck:
        is_named = part.is_task and part.config.get("name") == part.label
        not_its_own = {"kind", *(_OF_TASK if part.is_task else _OF_STEP), *(["name"] if is_named else [])}
        config = {key: value for key, value in part.config.items() if key not in not_its_own}
        if part.is_task and isinstance(config.get("spec"), Mapping):
            config["spec"] = {key: value for key, value in config["spec"].items() if key not in _OF_TASK}
        spellings = fields.field_spellings(tool.config_model, getattr(tool, "field_aliases", {}))
        given = (*config.items(), *mapping(config.get("spec")).items())
        templated = {spellings.get(key, key) for key, value in given if has_template(value)}
        return cls(inspection, part, tool, config, spellings, templated)

    def run(self, context: ToolContext) -> None:
        """Report the errors in the tool's fields, and the fields that the tool ignores.

        The tool's own check ends at the first error. So the wrong field is removed or replaced by a valid value, and
        the check is repeated to find further errors.
        """
        hints = fields.field_types(self.tool.config_model)
        left, dropped = self._filled(hints), set[str]()
        unknown = self._unknown_fields(left)
        warnings: Sequence[ConfigurationError] = unknown
        for _ in range(2 * len(left) + 1):
            try:
                warnings = self.inspection.registry.prepare(self.part.kind, left, context).warnings
                break
            except TemplateError as error:
                if not self.templated:
                    self.inspection.add("NW204", self.part.path, f"{self.part.kind}: {error}")
                break
            except ConfigurationError as error:
                problem = error
            own = self._own(str(next(iter(_field_path(problem.field)), "")))
            if own in dropped:
                break
            if not self._is_of_stand_in(problem):
                self._report_error(problem, unknown)
            names = [name for name in left if self._own(name) == own]
            if problem.reason == "missing" or not names:
                break
            fitting = _stand_in(hints.get(own, Any), own)
            is_kept = all(isinstance(left[name], (str, int, float)) and left[name] != fitting for name in names)
            left = {name: value for name, value in left.items() if name not in names}
            left |= {own: fitting} if is_kept else {}
            dropped |= set() if is_kept else {own}
        for warning in warnings:
            self._report_warning(warning)

    def _own(self, name: str) -> str:
        """Return the field's name in the config model, given any accepted spelling (alias) of the field."""
        return self.spellings.get(name, name)

    def _filled(self, hints: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tool's fields, with each template replaced by a dummy value of the field's type."""
        raw_fields: frozenset[str] = getattr(self.tool, "raw_fields", frozenset())
        return {
            key: value if self._own(key) in raw_fields else _filled(value, hints.get(self._own(key), Any), key)
            for key, value in self.config.items()
        }

    def _unknown_fields(self, filled: Mapping[str, Any]) -> tuple[ConfigurationError, ...]:
        seen = {self._own(name): name for name in reversed(list(filled))}
        config = {name: value for name, value in filled.items() if seen[self._own(name)] == name}  # no second spelling
        kind, model = self.part.kind, self.tool.config_model
        try:
            _, unknown = fields.canonical(kind, config, model, getattr(self.tool, "field_aliases", {}))
        except ConfigurationError:  # `run` reports this error
            return ()
        return tuple(fields.unknown_field(kind, name, fields.field_names(model)) for name in unknown)

    def _is_of_stand_in(self, error: ConfigurationError) -> bool:
        """Return True if an error is about a dummy value that replaces a template, so not the author's mistake."""
        if _TEXT in error.problem:
            return True
        first, *inside = _field_path(error.field) or ("",)
        if not first:
            return bool(self.templated)
        own, config = self._own(str(first)), self.part.config
        given = (*config.items(), *mapping(config.get("spec")).items())
        value: Any = next((value for name, value in given if self._own(name) == own), None)
        for name in inside:
            value = value.get(name) if isinstance(value, dict) else value
        return isinstance(value, str) and has_template(value)

    def _report_error(self, error: ConfigurationError, unknown: Sequence[ConfigurationError]) -> None:
        kind = self.part.kind
        text = str(error if error.tool.startswith(kind) else error.in_tool(kind))
        if error.reason != "missing" or _field_path(error.field)[0] in self.part.config:
            self.inspection.add("NW204", self._place(error.field), text)
        elif misspelt := next((warning for warning in unknown if warning.suggestion), None):  # that is why
            self._report_unknown(misspelt, is_warning=False)
        else:
            self.inspection.add("NW203", self.part.path, text)

    def _report_warning(self, warning: ConfigurationError) -> None:
        if warning.field == "spec.policy":  # not on the Python plane: NW504
            return
        if warning.reason == "unknown":
            self._report_unknown(warning)
        elif not self.templated:  # other values decide which fields are ignored
            self.inspection.add("NW205", self._place(warning.field), str(warning))

    def _report_unknown(self, warning: ConfigurationError, *, is_warning: bool | None = None) -> None:
        of_task = fields.closest(warning.field.removeprefix("spec."), _OF_TASK) if self.part.is_task else ""
        suggestion = of_task or warning.suggestion
        text = f"{self.part.kind}: unknown field {warning.field!r}{did_you_mean(suggestion)}"
        place = self._place(warning.field)
        self.inspection.add("NW202", place, text if suggestion else str(warning), is_warning=is_warning)

    def _place(self, field: str) -> Place | Path:
        """Return the position of a field in the playbook file. The field may be in `spec`, or given by an alias."""
        path, playbook = self.part.path, self.inspection.playbook
        first, *inside = (field,) if playbook.has((*path, field)) else _field_path(field) or ("",)
        own = self._own(str(first))
        for name in (first, own, *(other for other, name in self.spellings.items() if name == own)):
            for found in ((*path, name), (*path, "spec", name)):
                if playbook.has(found):
                    return playbook.key_place(_existing_part(self.inspection, found, tuple(inside)))
        return path


def _filled(value: Any, hint: Any, name: str = "") -> Any:
    """Return a field's value, with each template in it replaced by a dummy value of the type that the field needs.

    Args:
        hint: type of the field.
        name: name of the field.
    """
    if isinstance(value, str):
        return _stand_in(hint, name) if has_template(value) else value
    arguments = typing.get_args(hint)
    if isinstance(value, Mapping):
        inner = arguments[1] if len(arguments) == 2 and typing.get_origin(hint) in (dict, Mapping) else Any
        own = fields.field_types(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else {}
        return {key: _filled(item, own.get(key, inner), str(key)) for key, item in value.items()}
    if isinstance(value, list):
        inner = arguments[0] if len(arguments) == 1 else Any
        return [_filled(item, inner, name) for item in value]
    return value


def _stand_in(hint: Any, name: str = "") -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _stand_in(next(one for one in arguments if one is not types.NoneType), name)
    if origin is typing.Literal:
        return arguments[0]
    text = f"https://{_TEXT}" if name.endswith(_ADDRESSES) else _TEXT
    return _STAND_INS.get(origin or hint, text) if hint is not str else text
