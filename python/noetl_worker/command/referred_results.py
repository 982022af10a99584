"""Results of earlier steps that a claim has as a reference and a preview, put in the place of the preview.

Both planes hand them out so (protocol/results.md#store). A template that reads past the preview would get nothing, or
the first row as if it were all of them, silently. So what the command's own templates and code read, and the preview
does not say, is fetched: each reference once. What cannot be fetched is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from noetl_worker.errors import ControlPlaneError, ServerRefused, ToolError
from noetl_worker.models import JsonValue
from noetl_worker.plane.client import Plane
from noetl_worker.plane.patience import until_it_passes
from noetl_worker.plane.rules import DialectRules
from noetl_worker.templates.paths import Path, names_in, paths_in
from noetl_worker.templates.redacted import REDACTED, mark_redacted
from noetl_worker.templates.template import WithFallback, has_template
from noetl_worker.transport.transport import MAX_BODY_BYTES

__all__ = ["as_python_plane", "with_referred_results"]

_MAX_TRIES: Final = 20
_MAX_BYTES: Final = MAX_BODY_BYTES
"""Of all results that one command fetches: as much as one answer may have."""
_KEPT_TEXT_BYTES: Final = 500
"""A longer text of a preview may be the beginning of one."""
_LOCATORS: Final = ("_ref", "_store", "_uri")
_POINTERS: Final = frozenset({*_LOCATORS, "ref", "reference"})
"""Fields that say where the result is: whoever reads them wants no more."""
_STEPS: Final = "steps"
_COPIES: Final = ("ctx", "workload")
"""Names that hold copies of the others."""
_CODE_READS_NAMES: Final = re.compile(r"\b(variables|context|main|globals)\b")
"""How code of `python` gets at the command's variables; a script of `rhai` has them all as its own."""


@dataclass(frozen=True, slots=True)
class _Referred:
    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """In bytes, as far as the claim says it."""
    summary: Mapping[str, JsonValue]
    """What the claim has under the step's name."""
    record: Mapping[str, JsonValue]
    """What it has under `steps`, on the Rust plane."""


async def with_referred_results(
    variables: dict[str, Any],
    fields: JsonValue,
    cases: Sequence[JsonValue],
    kind: str,
    plane: Plane,
    redacted: list[str],
) -> dict[str, Any]:
    """The variables, with the full result of every earlier step that the command reads past its preview.

    Args:
        variables: as the claim has them; they are not changed.
        fields: the command's config and input.
        cases: its cases; a bare left side names a variable.
        kind: the command's tool kind; tasks of a list have their own.
        redacted: where the plane has taken something out of the results is added to it.

    Raises:
        ToolError: a result cannot be fetched, or they are too large together. It names the step.
    """
    referred = _referred(variables, plane.rules)
    if not referred:
        return variables
    names = _needed(_texts([fields, list(cases)], kind), referred, variables)
    names |= referred.keys() & set(_left_sides(cases))
    needed = [earlier for earlier in referred.values() if earlier.name in names]
    _check_size(needed, sum({earlier.ref: earlier.size for earlier in needed}.values()))
    filled, stored, size = dict(variables), dict[str, JsonValue](), 0
    for earlier in needed:
        if earlier.ref not in stored:
            found, packed = await _resolved(earlier, plane)
            stored[earlier.ref], size = found, size + len(packed)
            _check_size(needed, size)
            if plane.rules.redacts_results and REDACTED.encode() in packed:
                redacted += mark_redacted(found, earlier.name)
        _put(filled, earlier, stored[earlier.ref], plane.rules)
    return filled


# ── what the claim refers to ────────────────────────────────────────────────────────────────────


def _referred(variables: Mapping[str, Any], rules: DialectRules) -> dict[str, _Referred]:
    records = _object(variables.get(_STEPS)) if rules.has_step_records else {}
    found: dict[str, _Referred] = {}
    for name in {**records, **variables}:
        summary, record = _object(variables.get(name)), _object(records.get(name))
        reference = _object(_object(_object(record.get("context")).get("result")).get("reference"))
        if not reference:
            reference = _own_reference(summary, rules)
        ref = reference.get("ref")
        if isinstance(ref, str) and ref.startswith("noetl://"):
            size = _object(reference.get("meta")).get("bytes")
            found[name] = _Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)
    return found


def _own_reference(value: Mapping[str, JsonValue], rules: DialectRules) -> Mapping[str, JsonValue]:
    """The reference in a value itself; nothing for one that the Python plane has put the full result beside."""
    if rules.has_step_records:
        return {"ref": value["_ref"]} if "_ref" in value and "_store" in value else {}
    has_result = "data" in value and isinstance(value.get("_ref"), dict)
    if has_result or not value.keys() >= {"status", "context"}:
        return {}
    # Of a list of tasks that was cut, what is no plain value is in `context` alone.
    return _object(value.get("reference")) or _object(_object(value["context"]).get("reference"))


# ── what the command reads ──────────────────────────────────────────────────────────────────────


def _needed(
    texts: Iterator[tuple[str, str | None]], referred: Mapping[str, _Referred], variables: Mapping[str, Any]
) -> set[str]:
    found: set[str] = set()
    for text, of_kind in texts:
        if of_kind is not None:
            found |= _needed_by_code(text, of_kind, referred)
        elif has_template(text):
            for path in paths_in(text):
                found |= _needed_by_path(path, referred, variables)
    return found


def _texts(value: JsonValue, kind: str) -> Iterator[tuple[str, str | None]]:
    """Every text, and of code the kind of tool that runs it."""
    waiting: list[tuple[JsonValue, str]] = [(value, kind)]
    while waiting:
        item, its_kind = waiting.pop()
        if isinstance(item, dict):
            own = item.get("kind")
            its_kind = own if isinstance(own, str) else its_kind
            for key, inner in item.items():
                if key == "code" and isinstance(inner, str):
                    yield inner, its_kind
                waiting.append((inner, its_kind))
        elif isinstance(item, list):
            waiting += [(inner, its_kind) for inner in item]
        elif isinstance(item, str):
            yield item, None


def _left_sides(cases: Sequence[JsonValue]) -> Iterator[str]:
    """The left sides of conditions: a bare one is a variable's name."""
    for case in cases:
        conditions = _object(case).get("when")
        for condition in conditions if isinstance(conditions, list) else []:
            left = _object(condition).get("left")
            if isinstance(left, str):
                yield left


def _needed_by_code(code: str, kind: str, referred: Mapping[str, _Referred]) -> set[str]:
    if kind != "rhai" and not (kind == "python" and _CODE_READS_NAMES.search(code)):
        return set()
    return names_in(code, referred)


def _needed_by_path(path: Path, referred: Mapping[str, _Referred], variables: Mapping[str, Any]) -> set[str]:
    """The results that a path needs; all of them where it takes a name that holds them as a whole."""
    head, rest = path[0], path[1:]
    held = _held_by(str(head), referred, variables)
    if held and not rest:
        return held
    if held and head != _STEPS and rest[0] == _STEPS:
        return _needed_by_path(rest, referred, variables)
    name, fields = (str(rest[0]), rest[1:]) if held else (str(head), rest)
    if name not in (held or referred):
        return set()
    earlier = referred[name]
    return set() if _has(earlier.record if head == _STEPS else earlier.summary, fields) else {name}


def _held_by(head: str, referred: Mapping[str, _Referred], variables: Mapping[str, Any]) -> set[str]:
    """The results that are below a name: the planes, or `command.py`, have copies of all names there."""
    if head == _STEPS:
        return {name for name, earlier in referred.items() if earlier.record}
    if head not in _COPIES:
        return set()
    copy = variables.get(head)
    return {name for name in referred if not isinstance(copy, dict) or name in copy}


def _has(summary: Mapping[str, JsonValue], path: Path) -> bool:
    """Whether a preview has what the full result has at a path: no list, no object, no long text."""
    if path and path[0] in _POINTERS and path[0] in summary:
        return True
    if path and path[0] in _object(summary.get("data")):
        return False  # the result's own field hides the preview's
    at: JsonValue = summary
    for key in path:
        if isinstance(at, dict) and key in at and "_truncated" not in at:
            at = at[key]
        elif isinstance(at, list) and at and key == 0:
            at = at[0]
        else:
            return False
    if isinstance(at, str):
        return len(at.encode()) < _KEPT_TEXT_BYTES
    return not isinstance(at, (dict, list))


# ── fetching and putting ────────────────────────────────────────────────────────────────────────


def _check_size(needed: list[_Referred], size: int) -> None:
    if size > _MAX_BYTES:
        names = ", ".join(sorted(earlier.name for earlier in needed))
        raise ToolError(
            f"the stored results that this command reads ({names}) have {size} bytes, more than {_MAX_BYTES}: "
            "read fewer steps in one command, or let the earlier step return less",
            kind="resource",
        )


async def _resolved(earlier: _Referred, plane: Plane) -> tuple[JsonValue, bytes]:
    what = f"the result of step {earlier.name!r}"
    try:
        ask = partial(plane.stored_result, earlier.ref, earlier.reference)
        found, packed = await until_it_passes(what, ask, max_tries=_MAX_TRIES)
    except ControlPlaneError as error:
        kind = "client_error" if isinstance(error, ServerRefused) and error.status < 500 else "connection"
        text = (
            f"{what} cannot be fetched from the result store ({earlier.ref}), and the claim has a preview only: {error}"
        )
        raise ToolError(text, kind=kind, retryable=error.is_retryable) from error
    if found is None:
        raise ToolError(f"{what} is not in the result store ({earlier.ref}): run the step again", kind="client_error")
    return found, packed


def _put(variables: dict[str, Any], earlier: _Referred, stored: JsonValue, rules: DialectRules) -> None:
    """Set the step's name, wherever the claim has it."""
    if not rules.has_step_records:
        value = as_python_plane(stored, earlier.summary)
        for copy in _COPIES:
            held = variables.get(copy)
            if isinstance(held, dict) and earlier.name in held:
                variables[copy] = {**held, earlier.name: value}
    else:
        value = _as_rust_plane(stored, earlier.summary)
        if earlier.record:
            record = WithFallback(_spliced(earlier.record, stored), value)
            variables[_STEPS] = {**variables[_STEPS], earlier.name: record}
    variables[earlier.name] = value


def as_python_plane(stored: JsonValue, summary: Mapping[str, JsonValue]) -> Mapping[str, Any]:
    """As the plane hands out a result that it has just resolved (recorded: result-reference-claim-2)."""
    rows = {"rows": stored} if isinstance(stored, list) else {}
    return WithFallback({"data": stored, **rows, **_object(stored)}, {**summary, "context": stored})


def _as_rust_plane(stored: JsonValue, summary: Mapping[str, JsonValue]) -> Mapping[str, Any]:
    """As the plane hands out a result that it keeps in full: the data's fields, and the data again under `data`.

    Of a sequence the tasks' fields stand beside its labels too. One with a single task looks like an
    object in an object, and is taken for a sequence, as the published worker does.
    """
    data = stored["data"] if isinstance(stored, dict) and stored.keys() >= {"status", "data"} else stored
    locators = {name: summary[name] for name in _LOCATORS if name in summary}
    if not isinstance(data, dict):
        return WithFallback({**locators, "data": data}, summary)
    of_tasks: dict[str, Any] = {}
    if all(isinstance(task, dict) for task in data.values()):
        for task in data.values():
            of_tasks.update(task)
    if len(data) == 1:
        data = {**data, **of_tasks}
    return WithFallback(
        {**locators, "data": WithFallback(data, of_tasks), **data},
        {**summary, **of_tasks},
    )


def _spliced(record: Mapping[str, Any], stored: JsonValue) -> dict[str, Any]:
    """A step's record with the full result where it has the preview, and without the reference."""
    context = _object(record.get("context"))
    result = {key: item for key, item in _object(context.get("result")).items() if key != "reference"}
    full = stored if isinstance(stored, dict) and stored.keys() >= {"status", "data"} else {"data": stored}
    return {**record, "context": {**context, "result": {**result, "context": full}}}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
