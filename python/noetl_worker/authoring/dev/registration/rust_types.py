"""The Rust plane's types of a playbook, as in noetl-server 3.54.0, and its further checks before an execution.

In a tool and in `next`, a field of type text accepts only text. Elsewhere, a field of type text also accepts a number.
Unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from noetl_worker.authoring.dev.registration.shapes import (
    Record,
    Refusal,
    Shape,
    list_of,
    mapping_of,
    of_type,
    optional,
)
from noetl_worker.authoring.outline import Path, StepPart, arc_target, step_arcs
from noetl_worker.models.wire import fields_of

KINDS: Final = frozenset(
    {
        "http", "postgres", "duckdb", "ducklake", "python", "workbook", "playbook", "playbooks", "secrets", "iterator",
        "container", "script", "snowflake", "transfer", "snowflake_transfer", "gcs", "gateway", "nats", "shell",
        "artifact", "noop", "task_sequence", "rhai", "subscription", "wasm",
    }
)  # fmt: skip
_VERBS: Final = ("continue", "retry", "break", "jump", "fail")
_INVALID: Final = "invalid type, expected {}"
_TEXT: Final = of_type(str, said=_INVALID.format("a string"))
_SCALAR: Final = of_type(str, int, float, bool, type(None), said=_INVALID.format("a string"))
_TRUTH: Final = of_type(bool, said=_INVALID.format("a boolean"))
_WHOLE: Final = of_type(int, said=_INVALID.format("i32"))
_NUMBER: Final = of_type(int, float, said=_INVALID.format("f64"))
_MAP: Final = mapping_of(said=_INVALID.format("a map"))
_SEQUENCE: Final = _INVALID.format("a sequence")
_STRUCT: Final = _INVALID.format("a map")
_MISSING: Final = "missing field `{}`"


def _record(fields: Mapping[str, Any], *needed: str) -> Record:
    return Record(fields, needed, _MISSING, _STRUCT)


def _kind(value: Any, path: Path) -> Iterator[Refusal]:
    if not isinstance(value, str) or value not in KINDS:
        yield Refusal(path, f"unknown variant `{value}`, no kind of a tool")


def _eval(value: Any, path: Path) -> Iterator[Refusal]:
    """Check one rule of a tool's `eval`, a list that says what follows the tool's outcome.

    A rule is `{expr: ..., do: retry}` or `{else: {do: fail}}`. Policies (`spec.policy`) are the newer form.
    """
    given = fields_of(value)
    if (given if "do" in given else fields_of(given.get("else"))).get("do") not in _VERBS:
        yield Refusal(path, f"eval has an invalid action. Valid: {', '.join(_VERBS)}")


_TOOL: Final = _record(
    {
        "kind": _kind,
        "eval": optional(list_of(_eval, _SEQUENCE)),
        **dict.fromkeys(("code", "url", "method", "query", "connection"), optional(_TEXT)),
        "params": optional(_MAP),
        "headers": optional(mapping_of(_TEXT, _STRUCT)),
    },
    "kind",
)


def _tool(value: Any, path: Path) -> Iterator[Refusal]:
    if isinstance(value, list):
        for index, task in enumerate(value):
            yield from _task(task, (*path, index))
        if not value:
            yield Refusal(path, "tool pipeline must have at least one task")
    else:
        yield from _single(value, path)


def _single(value: Any, path: Path) -> Iterator[Refusal]:
    yield from _TOOL(value, path)
    if isinstance(value, dict) and "input" in value and "args" in value:
        yield Refusal((*path, "args"), "duplicate field `args`: it is another name of `input`")


def _task(task: Any, path: Path) -> Iterator[Refusal]:
    """Check a task of a list, written as `{name: ..., kind: ...}` or `{NAME: {kind: ...}}`."""
    if isinstance(task, dict) and "kind" not in task and len(task) == 1:
        yield from mapping_of(_single, _STRUCT)(task, path)
    else:
        yield from _single(task, path)


_CURSOR: Final = _record({"kind": _SCALAR, "auth": optional(_SCALAR), "claim": _SCALAR}, "claim")
_FRAME: Final = _record(
    {
        **dict.fromkeys(("max_rows", "max_bytes", "row_concurrency"), optional(_WHOLE)),
        **dict.fromkeys(("max_seconds", "lease_seconds", "heartbeat_seconds"), optional(_NUMBER)),
        "process": optional(_SCALAR),
    }
)


def _mode(value: Any, path: Path) -> Iterator[Refusal]:
    if value not in ("sequential", "parallel", "cursor"):
        yield Refusal(path, f"unknown variant `{value}`, expected one of `sequential`, `parallel`, `cursor`")


_LOOP: Final = _record(
    {
        "in": optional(_SCALAR),
        "cursor": optional(_CURSOR),
        "iterator": _SCALAR,
        "spec": optional(_record({"mode": _mode, "max_in_flight": optional(_WHOLE), "frame": optional(_FRAME)})),
    },
    "iterator",
)


def _or_in_order(fields: Mapping[str, Shape], *needed: str) -> Shape:
    """Return the check for an object in `next`.

    The Rust plane accepts a mapping, or a list of the mapping's values in the order of `fields`.
    """
    record, shapes = _record(fields, *needed), list(fields.values())

    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, list) or not len(needed) <= len(value) <= len(shapes):
            yield from record(value, path)
            return
        for index, item in enumerate(value):
            yield from shapes[index](item, (*path, index))

    return check


_ARC: Final = _or_in_order({"step": _TEXT, "when": optional(_TEXT), "set": optional(_MAP)}, "step")
_TARGET: Final = _or_in_order({"step": _TEXT, "when": optional(_TEXT), "args": optional(_MAP)}, "step")
_ROUTER: Final = _or_in_order(
    {"spec": optional(_or_in_order({"mode": optional(_TEXT)})), "arcs": list_of(_ARC, _SEQUENCE)}
)


def _next(value: Any, path: Path) -> Iterator[Refusal]:
    if isinstance(value, dict):
        yield from _ROUTER(value, path)
    elif isinstance(value, list):
        of_targets = list(list_of(_TARGET)(value, path))
        if any(list_of(_TEXT)(value, path)) and of_targets and any(_ROUTER(value, path)):
            yield from of_targets
    elif not isinstance(value, str):
        yield Refusal(path, "data did not match any variant of untagged enum NextSpec")


_STEP: Final = Record(
    {
        "step": _SCALAR,
        **dict.fromkeys(("desc", "when"), optional(_SCALAR)),
        "spec": optional(_record(dict.fromkeys(("next_mode", "timeout", "on_error"), optional(_SCALAR)))),
        **dict.fromkeys(("args", "vars", "set"), optional(_MAP)),
        "loop": optional(_LOOP),
        "tool": _tool,
        "next": optional(_next),
    },
    ("step", "tool"),
    _MISSING,
    _STRUCT,
    refused={"case": "'case' blocks are not allowed in canonical format"},
)
_KEYCHAIN: Final = _record(
    {
        "name": _SCALAR,
        **dict.fromkeys(("credential", "token_type", "scope", "provider", "auth", "region"), optional(_SCALAR)),
        "map": optional(mapping_of(_SCALAR, _STRUCT)),
        "allowed_regions": list_of(_SCALAR, _SEQUENCE),
        **dict.fromkeys(("no_broker_fallback", "auto_renew"), _TRUTH),
    },
    "name",
)
_PLAYBOOK: Final = _record(
    {
        "apiVersion": _SCALAR,
        "kind": _SCALAR,
        "metadata": _record(
            {
                "name": _SCALAR,
                **dict.fromkeys(("path", "description"), optional(_SCALAR)),
                "labels": optional(mapping_of(_SCALAR, _STRUCT)),
            },
            "name",
        ),
        "vars": optional(_MAP),
        "keychain": optional(list_of(_KEYCHAIN, _SEQUENCE)),
        "workbook": optional(list_of(_record({"name": _SCALAR, "tool": _single}, "name", "tool"), _SEQUENCE)),
        "workflow": list_of(_STEP, _SEQUENCE),
    },
    "apiVersion",
    "kind",
    "metadata",
    "workflow",
)


def refused_by_rust(document: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yield the reasons why the Rust plane does not execute a playbook. The plane's answer gives the first reason."""
    found = list(_PLAYBOOK(document, ()))
    yield from (refusal._replace(text=_placed(refusal), status=400) for refusal in found)
    if document.get("apiVersion", "noetl.io/v2") != "noetl.io/v2":
        yield Refusal(("apiVersion",), f"Unsupported API version: {document['apiVersion']}. Expected noetl.io/v2")
    if document.get("kind", "Playbook") != "Playbook":
        yield Refusal(("kind",), f"Invalid kind: {document['kind']}. Expected Playbook")
    workflow = document.get("workflow")
    if isinstance(workflow, list):
        yield from _checks([fields_of(step) for step in workflow], document)


def _placed(refusal: Refusal) -> str:
    """Return a refusal's text with the path in front, for example `workflow[0].loop.in: invalid type`."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in refusal.path).lstrip(".")
    return f"{words}: {refusal.text}" if words else refusal.text


def _checks(steps: list[dict[str, Any]], document: Mapping[str, Any]) -> Iterator[Refusal]:
    names = [step.get("step") for step in steps]
    if "start" not in names:
        yield Refusal(("workflow",), "Workflow must have a step named 'start'", "start")
    entries = [fields_of(entry).get("name") for entry in document.get("workbook") or () if isinstance(entry, dict)]
    for index, step in enumerate(steps):
        path: Path = ("workflow", index)
        if step.get("step") is not None and step.get("step") in names[:index]:
            yield Refusal((*path, "step"), f"Duplicate step name: {step['step']}")
        tool = fields_of(step.get("tool"))
        if tool.get("kind") == "workbook" and (tool.get("name") not in entries or tool.get("name") is None):
            text = f"Step '{step.get('step')}': workbook action '{tool.get('name')}' not found in playbook.workbook[]"
            yield Refusal((*path, "tool", "name"), text)
        if isinstance(step.get("when"), str) and not _is_expression(step["when"]):
            yield Refusal((*path, "when"), f"Step '{step.get('step')}': invalid 'when' expression: {step['when']}")
        yield from _loop_checks(step, path)
        yield from _arc_checks(StepPart(path, step), names)


def _loop_checks(step: Mapping[str, Any], path: Path) -> Iterator[Refusal]:
    loop = step.get("loop")
    if not isinstance(loop, dict):
        return
    where, name = (*path, "loop"), step.get("step")
    if loop.get("in") is not None and not _is_expression(loop["in"]):
        yield Refusal((*where, "in"), f"Step '{name}': loop.in has invalid expression: {loop['in']}")
    if loop.get("iterator") == "":
        yield Refusal((*where, "iterator"), f"Step '{name}': loop.iterator must not be empty")
    if fields_of(loop.get("spec")).get("mode") == "cursor":
        if loop.get("cursor") is None:
            text = f"Step '{name}': loop.spec.mode=cursor requires a loop.cursor block with a claim query"
            yield Refusal(where, text, "cursor")
    elif loop.get("in") is None or (isinstance(loop["in"], str) and not loop["in"].strip()):
        yield Refusal(where, f"Step '{name}': loop requires `in:` (the collection expression)", "in")


def _arc_checks(step: StepPart, names: list[Any]) -> Iterator[Refusal]:
    following, name = step.value.get("next"), step.value.get("step")
    where = "next.arcs" if isinstance(following, dict) else "next"
    if isinstance(following, dict) and "arcs" not in following:  # `{step: ...}` is a router without arcs here
        return
    for at, arc in step_arcs(step):
        target = arc[0] if isinstance(arc, list) and arc else arc_target(arc)
        if isinstance(target, str) and target not in names:
            place = at if isinstance(arc, str) else (*at, "step")
            yield Refusal(place, f"Step '{name}' references unknown step '{target}' in {where}")
        when = fields_of(arc).get("when")
        if isinstance(when, str) and not _is_expression(when):
            yield Refusal((*at, "when"), f"Step '{name}': {where}[].when has invalid expression: {when}")


def _is_expression(text: object) -> bool:
    return not isinstance(text, str) or (bool(text) and ("{{" in text or "{" not in text))
