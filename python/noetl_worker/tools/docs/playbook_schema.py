"""JSON Schema of a playbook file and its tools, for editors.

    # yaml-language-server: $schema=playbook.schema.json

The schema checks the tools of a step, and the keys of `loop`, `next` and its arcs. For other fields of a step, such as
`set`, the schema has only a description.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.docs.task_schema import TASKS_SCHEMA

_FOR_PEOPLE: Final = ("desc", "description")
ARC_KEYS: Final = frozenset({"step", "when", "set", "spec", "args", "input", *_FOR_PEOPLE})
NEXT_KEYS: Final = frozenset({"spec", "arcs", "step", "when", "set", *_FOR_PEOPLE})
LOOP_KEYS: Final = frozenset({"in", "cursor", "iterator", "spec", "mode", *_FOR_PEOPLE})

_STEP_PARTS: Final[Mapping[str, str]] = {
    "desc": "For people.",
    "input": "Values for the step's tool.",
    "loop": "`in`, `iterator` and `spec`: one command for each item.",
    "next": "`arcs` with `step`, `when` and `set`: where to go on.",
    "set": "`ctx.x: ...`: values for later steps.",
    "spec": "The step's own policies.",
    "case": "When/then cases on the result.",
}


def playbook_schema(tools: Iterable[Tool[Any]], *, strict: bool = False) -> dict[str, JsonValue]:
    """Return the schema of a playbook file.

    Args:
        tools: the tool kinds that a playbook may use. The schema refuses any other kind.
        strict: True to refuse unknown fields of a tool. A tool without `kind` is always refused.
    """
    from noetl_worker.tools.docs.schema import json_schema  # imported late: the linter needs no schemas

    definitions: dict[str, Any] = {}
    dispatch: list[dict[str, Any]] = []
    names: list[str] = []
    for tool in tools:
        schema = json_schema(tool, strict=strict)
        definitions.update(schema.pop("$defs"))
        del schema["$schema"]
        kinds = schema["properties"]["kind"]["enum"]
        definitions[f"kind_{tool.kind}"] = schema
        names += kinds
        is_this = {"required": ["kind"], "properties": {"kind": {"enum": kinds}}}
        dispatch.append({"if": is_this, "then": {"$ref": f"#/$defs/kind_{tool.kind}"}})
    kind = {"enum": sorted(names), "description": "What runs."}
    definitions["tool"] = {"type": "object", "required": ["kind"], "properties": {"kind": kind}, "allOf": dispatch}
    definitions["tasks"] = {**TASKS_SCHEMA, "items": {"allOf": [TASKS_SCHEMA["items"], _TASK]}}
    definitions["step"] = _step()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NoETL playbook",
        "type": "object",
        "required": ["workflow"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"const": "Playbook"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}, "path": {"type": "string"}}},
            "workload": {"description": "Values that `--set` and a caller's payload may replace."},
            "keychain": {"description": "Secrets by name, for `{{ keychain.<name>.<field> }}`."},
            "workbook": {"type": ["array", "null"], "items": {"properties": {"tool": {"$ref": "#/$defs/tool"}}}},
            "workflow": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}},
        },
        "$defs": definitions,
    }


_TASK: Final[Mapping[str, JsonValue]] = {
    "if": {"required": ["kind"]},
    "then": {"$ref": "#/$defs/tool"},
    "else": {"additionalProperties": {"$ref": "#/$defs/tool"}},
}


def _step() -> dict[str, JsonValue]:
    parts: dict[str, Any] = {name: {"description": meaning} for name, meaning in _STEP_PARTS.items()}
    either = {
        "description": "One tool, or a list of tasks that run as one command.",
        "if": {"type": "array"},
        "then": {"$ref": "#/$defs/tasks"},
        "else": {"$ref": "#/$defs/tool"},
    }
    parts["args"] = {"not": {}, "description": "Refused by a plane: write `input`."}
    parts |= {"loop": {**_known(LOOP_KEYS, nullable=True), **parts["loop"]}, "next": {**_next(), **parts["next"]}}
    return {"type": "object", "required": ["step"], "properties": {"step": {"type": "string"}, **parts, "tool": either}}


def _next() -> dict[str, JsonValue]:
    """Return the schema of a step's `next`: null, or an object with the required list `arcs`."""
    arcs = {"type": "array", "items": {**_known(ARC_KEYS), "required": ["step"]}}
    properties = {**dict.fromkeys(sorted(NEXT_KEYS), True), "arcs": arcs}
    return {"anyOf": [{"type": "null"}, {**_known(NEXT_KEYS), "properties": properties, "required": ["arcs"]}]}


def _known(keys: Collection[str], *, nullable: bool = False) -> dict[str, Any]:
    """Return the schema of an object that may have only the keys `keys`, so that a misspelt key (`whn`) is an error."""
    kinds = ["object", "null"] if nullable else "object"
    return {"type": kinds, "properties": dict.fromkeys(sorted(keys), True), "additionalProperties": False}
