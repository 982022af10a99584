"""NW2: the fields of tools, checked by the worker's own registry and config models."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.authoring.dev.orchestration.playbook import known_kinds
from noetl_worker.authoring.dev.outline import ToolPart, mapping, names_in, policy_of, tools_of
from noetl_worker.authoring.dev.positions import Path, Place
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.errors import ConfigurationError, TemplateError, did_you_mean
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools import fields, policy
from noetl_worker.tools.contract import Tool, ToolContext
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.memory_context import tool_context

_PART_OF_PATH: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_OF_TASK: Final = ("policy",)
_OF_STEP: Final = ("case", "cases")
"""Keys of the step that the worker removes before it reads the tool."""
_TEXT: Final = "a-text-that-a-template-gives"
_STAND_INS: Final[Mapping[Any, Any]] = {str: _TEXT, int: 1, float: 1.0, bool: False, dict: {}, list: []}
"""Placeholders for templates, by the field's type."""


def check_tools(inspection: Inspected) -> None:
    context = tool_context(registry=inspection.registry)
    entries = names_in(inspection.document, "workbook")
    for part in tools_of(inspection.document):
        if part.kind and isinstance(part.config["kind"], str) and not has_template(part.kind):
            _check_tool(inspection, part, context)
        if part.kind == "workbook":
            _check_entry(inspection, part, entries)


def _check_entry(inspection: Inspected, part: ToolPart, entries: Sequence[str]) -> None:
    """Check that a workbook entry exists. A task's `name` is its label on one plane, so only its `task` is read."""
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
        _check_fields(inspection, part, tool, context)


def _check_policy(inspection: Inspected, part: ToolPart) -> None:
    path, given = policy_of(part)
    try:
        rules = policy.parse_policy(part.label, given)
    except ConfigurationError as error:
        _add_policy_problem(inspection, path, error)
        return
    for problem in (
        *policy.jumps_nowhere(rules, part.position, part.labels),
        *policy.unknown_words(part.label, given),
    ):
        is_certain = problem.reason == "invalid" or bool(problem.suggestion)
        _add_policy_problem(inspection, path, problem, is_warning=not is_certain)


def _add_policy_problem(
    inspection: Inspected, path: Path, problem: ConfigurationError, *, is_warning: bool = False
) -> None:
    """Report a problem of a policy; a list of rules is read like an object with `rules`."""
    inside = _path_of(problem.field)
    if inside[:1] == ("rules",) and not inspection.playbook.has((*path, "rules")):
        inside = inside[1:]
    place = inspection.playbook.key(_there(inspection, path, inside))
    text = f"{problem.problem}{did_you_mean(problem.suggestion)}"
    inspection.add("NW206", place, text, is_warning=is_warning)


def _path_of(field: str) -> Path:
    """Return the path of a field: `rules[0].then` is ("rules", 0, "then")."""
    return tuple(int(index) if index else name for index, name in _PART_OF_PATH.findall(field))


def _there(inspection: Inspected, path: Path, inside: Path) -> Path:
    """Return the part of a path that exists in the playbook."""
    for part in inside:
        if not inspection.playbook.has((*path, part)):
            break
        path = (*path, part)
    return path


# ── fields ──────────────────────────────────────────────────────────────────────────────────────


def _check_fields(inspection: Inspected, part: ToolPart, tool: Tool[Any], context: ToolContext) -> None:
    is_named = part.is_task and part.config.get("name") == part.label
    not_its_own = {"kind", *(_OF_TASK if part.is_task else _OF_STEP), *(["name"] if is_named else [])}
    config = {key: value for key, value in part.config.items() if key not in not_its_own}
    if part.is_task and isinstance(config.get("spec"), Mapping):
        config["spec"] = {key: value for key, value in config["spec"].items() if key not in _OF_TASK}
    spellings = fields.spellings_of(tool.config_model, getattr(tool, "field_aliases", {}))
    given = (*config.items(), *mapping(config.get("spec")).items())
    templated = {spellings.get(key, key) for key, value in given if has_template(value)}
    hints = fields.hints_of(tool.config_model)
    raw_fields: frozenset[str] = getattr(tool, "raw_fields", frozenset())
    filled = {
        key: value if spellings.get(key, key) in raw_fields else _filled(value, hints.get(spellings.get(key, key), Any))
        for key, value in config.items()
    }
    try:
        warnings = inspection.registry.prepare(part.kind, filled, context).warnings
    except TemplateError as error:
        if not templated:
            inspection.add("NW204", part.path, f"{part.kind}: {error}")
        return
    except ConfigurationError as error:
        warnings = _unknown_fields(part.kind, filled, tool)
        if not _is_of_stand_in(error, spellings, templated):
            _report_error(inspection, part, error, warnings, spellings)
            return
    for warning in warnings:
        _report_warning(inspection, part, warning, spellings, templated)


def _unknown_fields(kind: str, config: Mapping[str, Any], tool: Tool[Any]) -> tuple[ConfigurationError, ...]:
    try:
        _, unknown = fields.canonical(kind, config, tool.config_model, getattr(tool, "field_aliases", {}))
    except ConfigurationError:  # this is the error that is reported
        return ()
    known = fields.names_of(tool.config_model)
    return tuple(fields.unknown_field(kind, name, known) for name in unknown)


def _filled(value: Any, hint: Any) -> Any:
    """Return the value with a fitting placeholder for each template."""
    if isinstance(value, str):
        return _stand_in(hint) if has_template(value) else value
    arguments = typing.get_args(hint)
    if isinstance(value, Mapping):
        inner = arguments[1] if len(arguments) == 2 and typing.get_origin(hint) in (dict, Mapping) else Any
        own = fields.hints_of(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else {}
        return {key: _filled(item, own.get(key, inner)) for key, item in value.items()}
    if isinstance(value, list):
        inner = arguments[0] if len(arguments) == 1 else Any
        return [_filled(item, inner) for item in value]
    return value


def _stand_in(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _stand_in(next(one for one in arguments if one is not types.NoneType))
    if origin is typing.Literal:
        return arguments[0]
    return _STAND_INS.get(origin or hint, _TEXT)


def _is_of_stand_in(error: ConfigurationError, spellings: Mapping[str, str], templated: set[str]) -> bool:
    """Return True if an error may be about a placeholder for a template."""
    first = str(next(iter(_path_of(error.field)), ""))
    return bool(templated) and (not first or spellings.get(first, first) in templated)


def _report_error(
    inspection: Inspected,
    part: ToolPart,
    error: ConfigurationError,
    unknown: Sequence[ConfigurationError],
    spellings: Mapping[str, str],
) -> None:
    text = str(error if error.tool.startswith(part.kind) else error.within(part.kind))
    if error.reason == "missing" and _path_of(error.field)[0] not in part.config:
        if misspelt := next((warning for warning in unknown if warning.suggestion), None):  # that is why
            _report_warning(inspection, part, misspelt, spellings, set())
        else:
            inspection.add("NW203", part.path, text)
    else:
        inspection.add("NW204", _place_of_field(inspection, part, error.field, spellings), text)


def _report_warning(
    inspection: Inspected,
    part: ToolPart,
    warning: ConfigurationError,
    spellings: Mapping[str, str],
    templated: set[str],
) -> None:
    if warning.field == "spec.policy":  # not on the Python plane: NW504
        return
    place = _place_of_field(inspection, part, warning.field, spellings)
    if warning.reason == "unknown":
        is_guessed = bool(warning.suggestion)
        text = f"{part.kind}: unknown field {warning.field!r}{did_you_mean(warning.suggestion)}"
        inspection.add("NW202", place, text if is_guessed else str(warning), is_warning=not is_guessed)
    elif not templated:  # other values decide which fields are ignored
        inspection.add("NW205", place, str(warning))


def _place_of_field(inspection: Inspected, part: ToolPart, field: str, spellings: Mapping[str, str]) -> Place | Path:
    """Return the place of a field, in any spelling and at any level."""
    first, *inside = (field,) if inspection.playbook.has((*part.path, field)) else _path_of(field) or ("",)
    own = spellings.get(str(first), first)
    for name in (first, own, *(other for other, name in spellings.items() if name == own)):
        for path in ((*part.path, name), (*part.path, "spec", name)):
            if inspection.playbook.has(path):
                return inspection.playbook.key(_there(inspection, path, tuple(inside)))
    return part.path
