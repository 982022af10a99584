"""NW2: what the worker's own registry and config models say of a tool's fields."""

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
from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools import fields, policy
from noetl_worker.tools.contract import Tool, ToolContext
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.memory_context import tool_context

_QUOTED: Final = re.compile(r"'([^']+)'")
_OF_TASK: Final = ("policy",)
_OF_STEP: Final = ("case", "cases")
"""The worker takes them out before it looks at the tool."""
_TEXT: Final = "a-text-that-a-template-gives"
_FILES: Final = (".yaml", ".yml")
_ADDRESSES: Final = ("url", "endpoint", "address")
_STAND_INS: Final[Mapping[Any, Any]] = {str: _TEXT, int: 1, float: 1.0, bool: False, dict: {}, list: []}
"""In the place of a template, by the type that the field has."""


def check_tools(inspection: Inspected) -> None:
    context = tool_context(registry=inspection.registry)
    entries = names_in(inspection.document, "workbook")
    for part in tools_of(inspection.document):
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
    """Of a task `name` is its label, on one plane."""
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
        ignored = policy.unknown_words(part.label, given)
    except ConfigurationError as error:
        inspection.add("NW206", _place_of_rule(inspection, path, str(error)), _without_kind(str(error)))
        return
    for message in policy.jumps_nowhere(rules, part.position, part.labels):
        place = _place_of_rule(inspection, path, message.partition(" of task ")[0])
        inspection.add("NW206", place, _without_kind(message))
    for message in ignored:
        place = _place_of_rule(inspection, path, message)
        inspection.add("NW206", place, _without_kind(message), is_warning=True)


def _place_of_rule(inspection: Inspected, path: Path, message: str) -> Place:
    """Of the word that a message quotes, within the rule that it numbers."""
    numbered = re.search(r": rule (\d+)", message)
    if numbered is not None:
        inside = (*path, "rules", int(numbered[1]))
        path = inside if inspection.playbook.has(inside) else (*path, int(numbered[1]))
    for word in reversed(_QUOTED.findall(message.split(": rule", 1)[-1])):
        found = inspection.playbook.below(path, word.partition(":")[0])
        if found is not None:
            return found
    return inspection.playbook.at(path)


def _without_kind(message: str) -> str:
    return message.removeprefix("task_sequence: ")


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
        key: value
        if spellings.get(key, key) in raw_fields
        else _filled(value, hints.get(spellings.get(key, key), Any), key)
        for key, value in config.items()
    }
    for warning in _warnings_of(inspection, part, tool, context, filled):
        _report_warning(inspection, part, warning, spellings, templated)


def _warnings_of(
    inspection: Inspected, part: ToolPart, tool: Tool[Any], context: ToolContext, filled: dict[str, Any]
) -> Sequence[str]:
    """Report each error, of the literal fields beside templated ones too; return what is ignored.

    An error ends the tool's own check. So a field with one gets a value that fits, or goes, and the rest is looked at.
    """
    own_spellings = getattr(tool, "field_aliases", {})
    spellings, hints = fields.spellings_of(tool.config_model, own_spellings), fields.hints_of(tool.config_model)
    left, dropped = dict(filled), set[str]()
    for _ in range(2 * len(filled) + 1):
        try:
            return inspection.registry.prepare(part.kind, left, context).warnings
        except (ConfigurationError, TemplateError) as error:
            message = str(error)
        if dropped & set(_named_in(message)):
            break
        if not _is_of_stand_in(message, part.config):
            _report_error(inspection, part, message, spellings)
        if "is missing" in message:
            break
        subject = _subject_of(message.removeprefix(f"{part.kind}: "), left)
        if subject is None:
            break
        own = spellings.get(subject, subject)
        names = [name for name in left if spellings.get(name, name) == own]
        fitting = _stand_in(hints.get(own, Any), own)
        is_kept = all(isinstance(left[name], (str, int, float)) and left[name] != fitting for name in names)
        left = {name: value for name, value in left.items() if name not in names} | ({own: fitting} if is_kept else {})
        dropped |= set() if is_kept else {own}
    _, unknown = fields.canonical(part.kind, _without_doubles(filled, spellings), tool.config_model, own_spellings)
    return [fields.unknown_field(part.kind, name, tool.config_model) for name in unknown]


def _subject_of(text: str, config: Mapping[str, Any]) -> str | None:
    """Return the field that an error is about: quoted, or its first word, or the one with a value that it quotes."""
    quoted = _named_in(text)
    words = [name.partition(".")[0] for name in quoted] + re.findall(r"^\w+", text)
    found = [word for word in words if word in config]
    return next(iter([*found, *(name for name, value in config.items() if value in quoted)]), None)


def _without_doubles(config: Mapping[str, Any], spellings: Mapping[str, str]) -> dict[str, Any]:
    """Each field in its first spelling."""
    seen = {spellings.get(name, name): name for name in reversed(list(config))}
    return {name: value for name, value in config.items() if seen[spellings.get(name, name)] == name}


def _filled(value: Any, hint: Any, name: str = "") -> Any:
    """The value with something that fits in the place of each template."""
    if isinstance(value, str):
        return _stand_in(hint, name) if has_template(value) else value
    arguments = typing.get_args(hint)
    if isinstance(value, Mapping):
        inner = arguments[1] if len(arguments) == 2 and typing.get_origin(hint) in (dict, Mapping) else Any
        own = fields.hints_of(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else {}
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


def _named_in(message: str) -> list[str]:
    return [name.removeprefix("spec.") for name in _QUOTED.findall(message)]


def _field_of(message: str) -> str:
    """A message names its field, first of all that it quotes."""
    return next(iter(_named_in(message)), "").partition(".")[0]


def _is_of_stand_in(message: str, config: Mapping[str, Any]) -> bool:
    """Whether an error says something of what stands in a template's place alone."""
    if _TEXT in message:
        return True
    path = next(iter(_named_in(message)), "").split(".")
    value: Any = config.get(path[0], mapping(config.get("spec")).get(path[0]))
    for name in path[1:]:
        value = value.get(name) if isinstance(value, dict) else value
    return isinstance(value, str) and has_template(value)


def _report_error(inspection: Inspected, part: ToolPart, message: str, spellings: Mapping[str, str]) -> None:
    named, first = _named_in(message), _field_of(message)
    text = message.removeprefix(f"{part.kind}: ")
    if "is missing" in text and first not in part.config:
        misspelt = [name for name in named if "unknown field" in message and name in part.config]
        if misspelt:  # that is why
            at = inspection.playbook.key((*part.path, misspelt[0]))
            guess = fields.nearest(misspelt[0], [first, *spellings])
            inspection.add("NW202", at, f"{part.kind}: unknown field '{misspelt[0]}'{guess}", is_warning=False)
        else:
            inspection.add("NW203", part.path, f"{part.kind}: {text}")
        return
    quoted = next((found for name in named if (found := inspection.playbook.below(part.path, name)) is not None), None)
    found = _place_of_field(inspection, part, first, spellings) or quoted
    inspection.add("NW204", found or part.path, f"{part.kind}: {text}")


def _report_warning(
    inspection: Inspected, part: ToolPart, message: str, spellings: Mapping[str, str], templated: set[str]
) -> None:
    if "spec.policy is ignored" in message:  # not on the Python plane: NW504
        return
    named = _QUOTED.findall(message)
    first = named[0] if named else "retry"
    if "unknown field" in message:
        path: Path = (*part.path, *first.split(".", 1)) if first.startswith("spec.") else (*part.path, first)
        is_guessed = "did you mean" in message
        text = message.replace(" is ignored", "") if is_guessed else message
        inspection.add("NW202", inspection.playbook.key(path), text)
    elif not templated:  # what is ignored depends on other values
        inspection.add("NW205", _place_of_field(inspection, part, first, spellings) or part.path, message)


def _place_of_field(inspection: Inspected, part: ToolPart, field: str, spellings: Mapping[str, str]) -> Place | None:
    """In whichever spelling it is given, and wherever it stands."""
    own = spellings.get(field, field)
    for name in (field, own, *(other for other, name in spellings.items() if name == own)):
        for path in ((*part.path, name), (*part.path, "spec", name)):
            if inspection.playbook.has(path):
                return inspection.playbook.key(path)
    return None
