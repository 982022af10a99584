"""Results of earlier steps, read from the Rust plane's answer to a claim. Templates find each result under its step's
name, and the plane's object about each step (its record) under `steps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.remote.plane.names import STEPS, Names, Referred, read_reference
from noetl_worker.text.templates.template import WithFallback

_LOCATORS: Final = ("_ref", "_store", "_uri")


class RustNames(Names):
    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables from the answer to a claim, with a copy of all of them as `ctx`. If the answer has no
        `workload`, the same copy is `workload` too."""
        del step_input
        flat = dict(variables)
        return {"workload": flat, **variables, "ctx": flat}

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        records, found = fields_of(variables.get(STEPS)), {}
        for name in {**records, **variables}:
            summary, record = fields_of(variables.get(name)), fields_of(records.get(name))
            reference = fields_of(fields_of(fields_of(record.get("context")).get("result")).get("reference"))
            if not reference and "_ref" in summary and "_store" in summary:
                reference = {"ref": summary["_ref"]}
            if one := read_reference(name, reference, summary, record):
                found[name] = one
        return found

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        value = _resolved(stored, earlier.summary)
        if earlier.record:
            record = WithFallback(_spliced(earlier.record, stored), value)
            variables[STEPS] = {**variables[STEPS], earlier.name: record}
        variables[earlier.name] = value


def _resolved(stored: JsonValue, summary: Mapping[str, JsonValue]) -> Mapping[str, Any]:
    """Return a stored result in the form in which templates read the result of a step: the fields of the tool's data at
    the top level, and the whole data under `data`.

    If all values of the data are objects, the fields of these objects are readable at the top level too. The reason is
    a list of tasks, whose data has one object for each task. Data with a single object is treated in the same way, as
    in NoETL's published worker.

    Args:
        summary: preview of the result in the answer to the claim. Its fields are readable where the data has none.
    """
    data = stored["data"] if isinstance(stored, dict) and stored.keys() >= {"status", "data"} else stored
    locators = {name: summary[name] for name in _LOCATORS if name in summary}
    if not isinstance(data, dict):
        return WithFallback({**locators, "data": data}, summary)
    task_fields: dict[str, Any] = {}
    if all(isinstance(task, dict) for task in data.values()):
        for task in data.values():
            task_fields.update(task)
    if len(data) == 1:
        data = {**data, **task_fields}
    return WithFallback(
        {**locators, "data": WithFallback(data, task_fields), **data},
        {**summary, **task_fields},
    )


def _spliced(record: Mapping[str, Any], stored: JsonValue) -> dict[str, Any]:
    """Return a copy of a step's record (the plane's object about the step), with the full result in place of preview
    and reference."""
    context = fields_of(record.get("context"))
    result = {key: item for key, item in fields_of(context.get("result")).items() if key != "reference"}
    full = stored if isinstance(stored, dict) and stored.keys() >= {"status", "data"} else {"data": stored}
    return {**record, "context": {**context, "result": {**result, "context": full}}}
