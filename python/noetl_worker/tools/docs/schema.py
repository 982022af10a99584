"""JSON Schema of a step's `tool`, made from a kind's config model. Editors validate playbooks with this schema.

The schema accepts what the registry accepts: every spelling of a field, the worker's own fields, and fields under
`spec`. It also accepts a template or a text for a number, and a number for a text.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools import fields
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.docs.description import FieldDescription, KindDescription, describe_kind, field_docs

_TEMPLATE: Final = r"\{\{|\{%"
_WORDS: Final = "|".join(
    "".join(f"[{letter.upper()}{letter}]" for letter in word) for word in ("true", "false", "yes", "no", "on", "off")
)
"""Pattern of the words for true and false in upper and lower case (`[Tt][Rr]...`). Regular expressions in JSON Schema
have no flag to ignore case."""


def _or_text(schemas: list[dict[str, Any]], pattern: str, description: str) -> dict[str, Any]:
    """Return a schema that accepts what one of `schemas` accepts, a text that matches `pattern`, or a template."""
    text = {"type": "string", "pattern": rf"^\s*{pattern}\s*$|{_TEMPLATE}"}
    return {"anyOf": [*schemas, text], "description": description}


_DEFINITIONS: Final[Mapping[str, Any]] = {
    "template": {"type": "string", "pattern": _TEMPLATE, "description": "A template that gives the value."},
    "text": {"type": ["string", "number", "boolean"]},
    "integer": _or_text([{"type": "integer"}], "[-+]?[0-9]+", "A whole number, or a template that gives one."),
    "number": _or_text(
        [{"type": "number"}], r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?", "A number, or a template that gives one."
    ),
    "boolean": _or_text(
        [{"type": "boolean"}, {"enum": [0, 1]}], f"({_WORDS}|[01])", "true or false, or a template that gives it."
    ),
    "time": _or_text(
        [{"type": "number", "exclusiveMinimum": 0}],
        r"[0-9]*\.?[0-9]+\s*(ms|s|sec|secs|m|min|mins|h)?",
        "Seconds, or a text like 500ms, 30s, 2m, 1h.",
    ),
}
_SCALARS: Final[Mapping[Any, str]] = {str: "text", int: "integer", float: "number", bool: "boolean"}
_TIMES: Final = frozenset({"timeout", "timeout_seconds"})


def json_schema(tool: Tool[Any], *, strict: bool = False) -> dict[str, JsonValue]:
    """Return the JSON Schema (draft 2020-12) of a step's `tool`, for one tool kind.

    Args:
        tool: tool of the kind, from `Registry.get` or from a plug-in.
        strict: True to refuse unknown fields. By default they validate, because the worker only warns of them.
    """
    description = describe_kind(tool)
    own = _own_properties(tool, description)
    spellings = fields.field_spellings(tool.config_model, getattr(tool, "field_aliases", {}))
    kinds = {"enum": [description.kind, *description.aliases], "description": fields.WORKER_FIELDS["kind"]}
    properties: dict[str, Any] = {"kind": kinds, **own}
    for other, name in sorted(spellings.items()):
        properties[other] = {**own[name], "description": f"Another spelling of `{name}`."}
    for name, meaning in fields.WORKER_FIELDS.items():
        properties.setdefault(name, {"description": meaning})
    for name in _TIMES:
        meaning = properties[name].get("description", fields.WORKER_FIELDS[name])
        properties[name] = {**_or_null({"$ref": "#/$defs/time"}), "description": meaning}
    properties["spec"] = _spec_property(own)
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tool kind {description.kind}",
        "description": description.text,
        "type": "object",
        "properties": properties,
        "additionalProperties": not strict,
    }
    if needed := [_needed(field) for field in description.fields if field.is_needed]:
        schema["allOf"] = needed
    used = _references(schema)
    return {
        **schema,
        "$defs": {name: definition for name, definition in _DEFINITIONS.items() if name in used | {"template"}},
    }


def _own_properties(tool: Tool[Any], description: KindDescription) -> dict[str, Any]:
    """Return field -> JSON Schema for the fields of the tool's config model, with descriptions."""
    given: Mapping[str, Any] = getattr(tool, "field_schemas", {})
    hints = fields.field_types(tool.config_model)
    properties: dict[str, Any] = {}
    for field in description.fields:
        property_schema = dict(given[field.name]) if field.name in given else _of_type(hints[field.name])
        if not field.is_needed:
            property_schema = _or_null(property_schema)
            if field.default not in (None, [], {}) and isinstance(field.default, (str, int, float, bool, list, dict)):
                property_schema["default"] = field.default
        if field.meaning:
            property_schema["description"] = field.meaning
        properties[field.name] = property_schema
    return properties


def _spec_property(own: Mapping[str, Any]) -> dict[str, Any]:
    time = {"$ref": "#/$defs/time"}
    total = {"type": "object", "properties": {"total": time}}
    timeout = {
        **_or_null({"anyOf": [time, total]}),
        "description": "Longest time of the call; the shortest one counts.",
    }
    return {
        "description": fields.WORKER_FIELDS["spec"],
        "type": ["object", "null"],
        "properties": {**own, "policy": {"description": "Rules for the outcome of a task."}, "timeout": timeout},
    }


def _needed(field: FieldDescription) -> dict[str, Any]:
    """Return a JSON schema by which a tool's config must have a field. The field may stand under any of its spellings
    in the config, or under its own name in the config's object `spec`."""
    in_spec = {"required": ["spec"], "properties": {"spec": {"type": "object", "required": [field.name]}}}
    return {"anyOf": [*({"required": [name]} for name in (field.name, *field.spellings)), in_spec]}


def _of_type(hint: Any) -> dict[str, Any]:
    """Return a schema for all values that the decoder of fields.py accepts for a type. The values for a number include
    templates and texts like `"5"`. A type that JSON Schema cannot express gets a schema that accepts anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return {"$ref": f"#/$defs/{_SCALARS[hint]}"}
    if origin in (typing.Union, types.UnionType):
        options = [_of_type(argument) for argument in arguments if argument is not types.NoneType]
        return options[0] if len(options) == 1 else {"anyOf": _distinct(options)}
    if origin is typing.Literal:
        return _or_template({"enum": list(arguments)})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _or_template({"enum": [member.value for member in hint]})
    if origin in (list, Sequence) or hint is list:
        return _or_template({"type": "array", "items": _of_type(arguments[0]) if arguments else {}})
    if origin in (dict, Mapping) or hint is dict:
        values = _or_null(_of_type(arguments[1])) if arguments else {}
        return _or_template({"type": "object", "additionalProperties": values})
    return _or_template(_of_dataclass(hint)) if dataclasses.is_dataclass(hint) else {}


def _of_dataclass(model: Any) -> dict[str, Any]:
    docs, hints = field_docs(model), fields.field_types(model)
    own = [field for field in dataclasses.fields(model) if field.init]
    properties = {field.name: _or_null(_of_type(hints[field.name])) for field in own}
    for name in properties.keys() & docs.keys():
        properties[name]["description"] = docs[name]
    needed = [one.name for one in own if one.default is one.default_factory is dataclasses.MISSING]
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"$ref": "#/$defs/template"}]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if not schema:  # an empty schema accepts anything, null too
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def _distinct(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    flat = [schema for option in options for schema in (option["anyOf"] if set(option) == {"anyOf"} else [option])]
    return [option for index, option in enumerate(flat) if option not in flat[:index]]


def _references(schema: Any) -> set[str]:
    if isinstance(schema, Mapping):
        own = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
        return own.union(*map(_references, schema.values()))
    return set().union(*map(_references, schema)) if isinstance(schema, list) else set()
