"""Results of earlier steps, read from the Python plane's answer to a claim. Templates use the results by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.remote.plane.names import Referred, read_reference
from noetl_worker.remote.plane.python.store import PACKED, has_packed, unpacked
from noetl_worker.text import json_text
from noetl_worker.text.templates.template import WithFallback

_PLANES_OWN: Final = frozenset({"ctx", "event", "iter", "job", "loop", "output", "workload"})
"""Names that the plane itself adds to its answer to a claim. Any other name there is a variable or the result of a
step."""
_COPIES: Final = ("ctx", "workload")
_LOOP_SIZE: Final = "__loop_collection_size"


class PythonNames:
    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables from the answer to a claim, with the complete results of earlier steps. In a loop,
        `iter` also has `_total`, the number of items.

        A result that a worker stored compressed (key `PACKED`) is decompressed. A result that the plane sent in two
        parts is completed (`_complete_result`).
        """
        names = variables
        for name in variables:
            value = variables[name]
            if type(value) is dict and "context" in value and name not in _PLANES_OWN:
                names = dict(variables) if names is variables else names
                whole = unpacked(value) if PACKED in value else None  # the plane has resolved the reference
                if whole is None:
                    names[name] = _complete_result(value)
                else:
                    _put(names, name, _resolved(json_text.loads(whole), value))
        if _LOOP_SIZE in step_input and isinstance(names.get("iter"), dict):
            names = {**names, "iter": {"_total": step_input[_LOOP_SIZE], **names["iter"]}}
        return names

    has_packed = staticmethod(has_packed)

    def unpack(self, value: Mapping[str, JsonValue]) -> JsonValue:
        packed = unpacked(value) if PACKED in value else None
        if packed is None:
            return value
        stored = json_text.loads(packed)
        if "reference" not in value:
            return stored
        beside = {name: value[name] for name in value if name != PACKED}
        return {**beside, "data": stored, **fields_of(stored)}

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        found = {}
        for name, value in variables.items():
            summary = fields_of(value)
            if one := read_reference(name, _reference(summary), summary, {}):
                found[name] = one
        return found

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        _put(variables, earlier.name, _resolved(stored, earlier.summary))


def _put(variables: dict[str, Any], name: str, value: Mapping[str, Any]) -> None:
    """Set a step's variable to the step's full result, and replace the variable's copies in `ctx` and `workload`."""
    for copy in _COPIES:
        held = variables.get(copy)
        if isinstance(held, dict) and name in held:
            variables[copy] = {**held, name: value}
    variables[name] = value


def _reference(value: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the reference to a stored result from the value that the answer to a claim has for a step. Return an empty
    object if the value has no reference, or has the full result already."""
    has_result = "data" in value and isinstance(value.get("_ref"), dict)
    if has_result or not value.keys() >= {"status", "context"}:
        return {}
    # If a list of tasks was cut, its objects and lists are in `context` only.
    return fields_of(value.get("reference")) or fields_of(fields_of(value["context"]).get("reference"))


def _resolved(stored: JsonValue, summary: Mapping[str, JsonValue]) -> Mapping[str, Any]:
    """Return a stored result in the layout of a result that the answer to a claim contains in full. Templates thus find
    the same names in both cases (recorded: result-reference-claim-2)."""
    rows = {"rows": stored} if isinstance(stored, list) else {}
    return WithFallback({"data": stored, **rows, **fields_of(stored)}, {**summary, "context": stored})


def _complete_result(value: JsonValue) -> JsonValue:
    """Return an earlier step's result with the fields of its `context` readable at the top level too.

    A command with a list of tasks gets this result from the plane in two parts: plain values at the top level, and all
    fields in `context`. If `context` has no field `data`, the returned object has the whole result under `data`, as in
    a command with a single tool. A result that is not in two parts is returned unchanged. (recorded: view-*,
    list-reads-*)"""
    context = value.get("context") if isinstance(value, dict) else None
    if not isinstance(context, dict) or not context.keys() >= value.keys() - {"context"}:
        return value
    behind = dict(context)
    step = WithFallback(value, behind)
    own = context.get("data")
    behind["data"] = WithFallback(own, step) if isinstance(own, dict) else context.get("data", step)
    return step
