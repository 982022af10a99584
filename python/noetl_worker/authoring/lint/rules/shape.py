"""Lint rules NW1: mistakes in the keys, types and names of a playbook's parts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from noetl_worker.authoring.dev.orchestration.playbook import END, NO_CURSOR, is_limit
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.outline import Path, StepPart, list_or_empty, mapping, step_arcs, step_parts, tool_parts
from noetl_worker.tools.docs.playbook_schema import ARC_KEYS, LOOP_KEYS, NEXT_KEYS
from noetl_worker.tools.fields import closest, nearest

_PLAYBOOK: Final = frozenset(
    {"apiVersion", "kind", "metadata", "workload", "keychain", "workbook", "workflow", "executor", "spec", "vars"}
)
_STEP: Final = frozenset(
    {
        "step", "desc", "description", "tool", "input", "args", "set", "loop", "next", "spec", "output", "cases",
        "case", "when",
    }
)  # fmt: skip
_LOOP_SPEC: Final = frozenset({"mode", "max_in_flight", "policy"})
_NEXT_SPEC: Final = frozenset({"mode", "policy", "on_no_match"})
_STEP_SPEC: Final = frozenset({"timeout", "policy"})
_KEYCHAIN: Final = frozenset(
    {
        "name", "kind", "scope", "map", "auth", "spec", "data", "ttl", "auto_renew", "desc", "provider", "endpoint",
        "ref", "target_audience", "credential", "credential_ref", "token_type", "token", "type", "region", "residency",
        "allowed_regions", "no_broker_fallback",
    }
)  # fmt: skip
"""Usual keys of a keychain entry. Any other key is allowed too, since a secret provider may read it."""
_WORKBOOK: Final = frozenset({"name", "tool", "desc", "description"})
_INSTEAD: Final = {("retry", "of a step"): "; make `tool` a list of this one task, with a rule `do: retry`"}
_API: Final = "noetl.io/v2"
_TYPES: Final[Mapping[type, str]] = {dict: "a mapping", list: "a list", str: "text", int: "a whole number"}


def check_shape(inspection: Inspected) -> None:
    playbook = inspection.playbook
    for key, place, first in playbook.duplicates:
        inspection.add("NW102", place, f"key '{key}' occurs twice, first in line {first.line}")
    if not isinstance(playbook.value, dict):
        inspection.add("NW104", (), "a playbook is a mapping with metadata and workflow", is_warning=False)
        return
    document = playbook.value
    if "cases" in document and "workflow" not in document:
        message = "this is a file of tests, which `noetl-worker test` reads"
        inspection.add("NW101", playbook.key_place(("cases",)), message, is_warning=False)
        return
    _keys(inspection, (), document, _PLAYBOOK, "of a playbook")
    _head(inspection, document)
    for name, kind in (("metadata", dict), ("workload", dict), ("keychain", list), ("workbook", list)):
        if document.get(name) is not None:
            _is(inspection, (name,), document[name], kind, name)
    for name, known in (("keychain", _KEYCHAIN), ("workbook", _WORKBOOK)):
        for index, entry in enumerate(list_or_empty(document.get(name))):
            if _is(inspection, (name, index), entry, dict, f"an entry of {name}"):
                _keys(inspection, (name, index), entry, known, f"of {name}", only_guessed=name == "keychain")
    for written, read, place in playbook.read_otherwise(("workload",)):
        inspection.add("NW107", place, f"YAML reads {written} as {json.dumps(read)}: quote it if it is text")
    if "workflow" not in document:
        _missing(inspection, (), document, "workflow", "workflow is missing", also=_PLAYBOOK)
    elif not isinstance(document["workflow"], list) or not document["workflow"]:
        inspection.add("NW104", playbook.key_place(("workflow",)), "workflow must be a list with at least one step")
    else:
        _workflow(inspection, document["workflow"])


def _head(inspection: Inspected, document: Mapping[str, Any]) -> None:
    kind, version = document.get("kind", "Playbook"), document.get("apiVersion", _API)
    if kind != "Playbook":
        inspection.add("NW103", ("kind",), f"kind is '{kind}', not Playbook")
    if version != _API:
        inspection.add("NW103", ("apiVersion",), f"apiVersion is '{version}', not {_API}")
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and "name" not in metadata:
        misspelt = next((key for key in metadata if nearest(str(key), ["name"])), None)
        if misspelt is None:
            inspection.add("NW105", ("metadata",), "metadata has no name")
        else:
            place = inspection.playbook.key_place(("metadata", misspelt))
            inspection.add("NW101", place, f"unknown key '{misspelt}' of metadata; did you mean 'name'?")


def _workflow(inspection: Inspected, workflow: list[Any]) -> None:
    names: dict[str, int] = {}
    for index, item in enumerate(workflow):
        path = ("workflow", index)
        if not _is(inspection, path, item, dict, "a step"):
            continue
        name = item.get("step")
        if not isinstance(name, str) or not name:
            _missing(inspection, path, item, "step", "step is missing: every step needs a name", also=_STEP)
        elif name in names:
            line = inspection.playbook.key_place(("workflow", names[name], "step")).line
            message = f"step '{name}' occurs twice; the other step is in line {line}"
            inspection.add("NW106", (*path, "step"), message)
        else:
            names[name] = index
    if names and "start" not in names and inspection.plane != "python":
        message = f"no step is named 'start'{nearest('start', list(names))}"
        inspection.add("NW105", ("workflow", 0, "step"), message)
    for step in step_parts(inspection.document):
        _step(inspection, step)
    for tool in tool_parts(inspection.document):
        if tool.label in tool.labels[: tool.position]:
            message = f"task '{tool.label}' occurs twice in its list; only the last result is kept"
            inspection.add("NW106", inspection.playbook.key_place(tool.path), message, is_warning=True)
        kind = tool.config.get("kind")
        if not isinstance(kind, str) or not kind:
            written = closest("kind", [*map(str, tool.config)])
            hint = f"; is '{written}' meant to be it?" if written else ""
            inspection.add("NW105", tool.path, f"the tool's kind is missing{hint}")


def _step(inspection: Inspected, step: StepPart) -> None:
    value, path = step.value, step.path
    _keys(inspection, path, value, _STEP, "of a step")
    tool = value.get("tool")
    leads_on = value.get("next") is not None and step.name != "start"  # no plane begins with a step without a tool
    if tool is None and not leads_on and step.name != END:
        _missing(inspection, path, value, "tool", f"step '{step.name}' has no tool", also={"tool", "next"})
    if tool is not None and not isinstance(tool, (dict, list)):
        inspection.add(
            "NW104",
            inspection.playbook.key_place((*path, "tool")),
            "tool must be a mapping with a kind, or a list of such",
        )
    if isinstance(tool, list):
        for index, task in enumerate(tool):
            _is(inspection, (*path, "tool", index), task, dict, "a task of a list")
        if not tool:
            inspection.add("NW104", inspection.playbook.key_place((*path, "tool")), "tool is an empty list")
    for name in ("input", "args", "set", "spec"):
        if value.get(name) is not None:
            _is(inspection, (*path, name), value[name], dict, name)
    _keys(inspection, (*path, "spec"), mapping(value.get("spec")), _STEP_SPEC, "of a step's spec")
    if value.get("loop") is not None:
        _loop(inspection, (*path, "loop"), value["loop"])
    _next(inspection, step)


def _loop(inspection: Inspected, path: Path, loop: Any) -> None:
    if not _is(inspection, path, loop, dict, "loop"):
        return
    _keys(inspection, path, loop, LOOP_KEYS, "of a loop")
    if "cursor" in loop or mapping(loop.get("spec")).get("mode") == "cursor":
        inspection.add("NW207", inspection.playbook.key_place(path), NO_CURSOR)
        return
    if "in" not in loop:
        _missing(inspection, path, loop, "in", "loop.in is missing: what is looped over?", also=LOOP_KEYS)
    if "iterator" not in loop:
        _missing(inspection, path, loop, "iterator", "loop.iterator is missing: the name of an item", also=LOOP_KEYS)
    spec = loop.get("spec")
    if spec is None or not _is(inspection, (*path, "spec"), spec, dict, "loop.spec"):
        return
    _keys(inspection, (*path, "spec"), spec, _LOOP_SPEC, "of a loop's spec")
    _one_of(inspection, (*path, "spec", "mode"), spec.get("mode"), ("sequential", "parallel"), "loop.spec.mode")
    limit = spec.get("max_in_flight")
    if limit is not None and not is_limit(limit):
        message = "loop.spec.max_in_flight must be a whole number of at least 1, or a template that gives one"
        inspection.add("NW104", (*path, "spec", "max_in_flight"), message)


def _next(inspection: Inspected, step: StepPart) -> None:
    path, following = (*step.path, "next"), step.value.get("next")
    if isinstance(following, dict):
        _keys(inspection, path, following, NEXT_KEYS, "of next")
        spec = mapping(following.get("spec"))
        _keys(inspection, (*path, "spec"), spec, _NEXT_SPEC, "of next.spec")
        _one_of(inspection, (*path, "spec", "mode"), spec.get("mode"), ("exclusive", "inclusive"), "next.spec.mode")
        if "arcs" in following:
            _is(inspection, (*path, "arcs"), following["arcs"], list, "next.arcs")
        elif "step" not in following:
            _missing(inspection, path, following, "arcs", "next.arcs is missing", also={"arcs", "step"})
    for arc_path, arc in step_arcs(step):
        if isinstance(arc, dict):
            if arc_path != path:
                _keys(inspection, arc_path, arc, ARC_KEYS, "of an arc")
            if not isinstance(arc.get("step"), str) or not arc["step"]:
                _missing(inspection, arc_path, arc, "step", "the arc names no step", also=ARC_KEYS)
            if arc.get("set") is not None:
                _is(inspection, (*arc_path, "set"), arc["set"], dict, "set")
        elif not isinstance(arc, str):
            inspection.add("NW104", arc_path, "an arc must be a mapping with a step")


# ── one value ───────────────────────────────────────────────────────────────────────────────────


def _keys(
    inspection: Inspected,
    path: Path,
    value: Mapping[str, Any],
    known: Collection[str],
    where: str,
    *,
    only_guessed: bool = False,
) -> None:
    for key in value:
        if key not in known:
            guess = nearest(str(key), sorted(known))
            hint = _INSTEAD.get((str(key), where), guess)
            message, place = f"unknown key '{key}' {where}{hint}", inspection.playbook.key_place((*path, key))
            if guess or not only_guessed:
                inspection.add("NW101", place, message)


def _missing(
    inspection: Inspected,
    path: Path,
    value: Mapping[str, Any],
    name: str,
    message: str,
    *,
    also: Collection[str] = (),
) -> None:
    """Report that an object lacks a required key, unless a misspelling of the key is already reported as unknown.

    Args:
        also: valid keys that look like the missing key, and so do not count as its misspelling.
    """
    if not any(key not in also and nearest(str(key), [name]) for key in value):
        inspection.add("NW105", path, message)


def _is(inspection: Inspected, path: Path, value: object, kind: type, what: str) -> bool:
    if isinstance(value, kind):
        return True
    if isinstance(value, str) and kind is dict and ("{{" in value or "{%" in value):
        return False  # a template may give a mapping
    inspection.add("NW104", path, f"{what} must be {_TYPES[kind]}, not {_said(value)}")
    return False


def _said(value: object) -> str:
    if value is None:
        return "nothing"
    return _TYPES.get(type(value), f"'{value}'") if not isinstance(value, bool) else str(value).lower()


def _one_of(inspection: Inspected, path: Path, value: object, allowed: tuple[str, ...], what: str) -> None:
    if value is not None and value not in allowed and not (isinstance(value, str) and "{{" in value):
        guess = nearest(str(value), list(allowed))
        inspection.add("NW104", path, f"{what} is '{value}', not {' or '.join(allowed)}{guess}")
