"""The fetching of earlier steps' results that a claim contains only as a reference and a preview.

Both planes send large results as a reference and a preview (protocol/results.md#store). A template that reads more than
the preview would silently get nothing, or the first row as if the result had only one row. So the worker fetches each
result that the command's templates and code read beyond its preview, once. If the tool gets its code later (`workbook`,
a script at an address), the worker fetches all results. A result that cannot be fetched is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from noetl_worker.errors import AnswerTooLarge, ControlPlaneError, ServerRefused, ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.fit import LESS_ADVICE, MAX_RESULT_BYTES
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.names import STEPS, Referred
from noetl_worker.remote.plane.patience import COMMAND_TRIES, retry_while_passing
from noetl_worker.text.templates.paths import Path, find_codes, names_in, paths_in
from noetl_worker.text.templates.redacted import mark_stored
from noetl_worker.text.templates.template import has_template

_MAX_BYTES: Final = MAX_RESULT_BYTES
"""Largest total size in bytes of the results that are fetched for one command. One result may take all of it."""
_TRUNCATED_FROM_BYTES: Final = 500
"""Size in bytes from which a string in a preview may be truncated, so that the full result is needed."""
_POINTERS: Final = frozenset({"_ref", "_store", "_uri", "ref", "reference"})
"""Fields of a preview that hold the result's address. A template that reads only these fields does not need the
result."""
_COPIES: Final = ("ctx", "workload")
"""Variables that contain copies of earlier steps' results. A template that reads a copy, as in `ctx.load.rows`,
may need the full result of the step (here `load`)."""
_CODE_READS_NAMES: Final = re.compile(r"\b(variables|context|main|globals)\b")
"""Words by which `python` code reads the command's variables. Code without these words cannot read earlier results, so
no results are fetched for such code. `rhai` code needs no such word: it reads each variable directly by its name."""
_SCRIPT_FROM_ELSEWHERE: Final = frozenset({"python", "postgres", "duckdb", "ducklake", "snowflake"})
"""Tool kinds whose field `script` may be the address of code that reads the command's variables."""


async def fill_referred_results(
    variables: dict[str, Any],
    fields: JsonValue,
    cases: Sequence[JsonValue],
    command: Command,
    plane: Plane,
    redacted: list[str],
) -> dict[str, Any]:
    """Return the variables with the full result of each earlier step that the command reads beyond its preview.

    Args:
        variables: the variables in the claim, which are not changed.
        fields: the command's config and input.
        cases: the command's cases. A condition's left side without template marks may be a variable's name.
        command: has the tool's kind (each task of a list has a kind of its own) and the ids for the log.
        redacted: list of paths. The path of each value that the plane has replaced by "[REDACTED]" is added.

    Raises:
        ToolError: a result cannot be fetched, or all results together are too large. The text names the step.
    """
    referred = plane.rules.names.referred(variables)
    if not referred:
        return variables
    read = partial(_needed, [fields, list(cases)], command.kind, referred, variables)
    names = await off_loop(command.size, read) | (referred.keys() & set(_left_sides(cases)))
    needed = [earlier for earlier in referred.values() if earlier.name in names]
    _check_size(needed, sum({earlier.ref: earlier.size for earlier in needed}.values()))
    filled, stored, size = dict(variables), dict[str, JsonValue](), 0
    for earlier in needed:
        if earlier.ref not in stored:
            found, packed = await _resolved(earlier, command, plane)
            stored[earlier.ref], size = found, size + len(packed)
            _check_size(needed, size)
            mark = partial(mark_stored, found, packed, earlier.name, redacts=plane.rules.redacts_results)
            redacted += await off_loop(len(packed), mark)
        plane.rules.names.put(filled, earlier, stored[earlier.ref])
    command.size += size
    return filled


# ── what the command reads ──────────────────────────────────────────────────────────────────────


def _needed(value: JsonValue, kind: str, referred: Mapping[str, Referred], variables: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps whose full results are needed by templates and code in `value`.

    Args:
        kind: the command's tool kind. A task with its own kind uses that kind for its code.
    """
    found: set[str] = set()
    waiting: list[tuple[JsonValue, str]] = [(value, kind)]
    while waiting:
        item, its_kind = waiting.pop()
        if isinstance(item, dict):
            own = item.get("kind")
            its_kind = own if isinstance(own, str) else its_kind
            if _is_read_later(item, its_kind):
                return set(referred)
            for code in find_codes(item):
                found |= _needed_by_code(code, its_kind, referred)
            waiting += [(inner, its_kind) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, its_kind) for inner in item]
        elif isinstance(item, str) and has_template(item):
            for path in paths_in(item):
                found |= _needed_by_path(path, referred, variables)
    return found


def _is_read_later(fields: Mapping[str, JsonValue], kind: str) -> bool:
    """Return whether the tool fetches its code later, so that nobody knows yet which variables the code reads.

    The code comes later for a workbook entry, and for a field `script` that has the code's address instead of code.
    A string of several lines is code, not an address.
    """
    if kind == "workbook":
        return True
    script = fields.get("script") if kind in _SCRIPT_FROM_ELSEWHERE else None
    if isinstance(script, dict):
        return not isinstance(fields_of(script.get("source")).get("code"), str)
    return isinstance(script, str) and "\n" not in script.strip()


def _left_sides(cases: Sequence[JsonValue]) -> Iterator[str]:
    """Yield the left sides of all conditions. A left side without template marks may be a variable's name."""
    for case in cases:
        conditions = fields_of(case).get("when")
        for condition in conditions if isinstance(conditions, list) else []:
            left = fields_of(condition).get("left")
            if isinstance(left, str):
                yield left


def _needed_by_code(code: str, kind: str, referred: Mapping[str, Referred]) -> set[str]:
    if kind not in ("python", "rhai"):
        return set()
    if code.lstrip().startswith("{{"):  # a template inserts the code
        return set(referred)
    if kind == "python" and not _CODE_READS_NAMES.search(code):
        return set()
    return names_in(code, referred)


def _needed_by_path(path: Path, referred: Mapping[str, Referred], variables: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps whose full results a path in a template needs, such as `load.rows[3].id`. A path
    that ends at `ctx`, `workload` or `steps` needs all results in this variable."""
    head, rest = path[0], path[1:]
    held = _held_by(str(head), referred, variables)
    if held and not rest:
        return held
    if held and head != STEPS and rest[0] == STEPS:
        return _needed_by_path(rest, referred, variables)
    name, fields = (str(rest[0]), rest[1:]) if held else (str(head), rest)
    if name not in (held or referred):
        return set()
    earlier = referred[name]
    return set() if _has(earlier.record if head == STEPS else earlier.summary, fields) else {name}


def _held_by(head: str, referred: Mapping[str, Referred], variables: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps whose results a variable contains. `ctx` and `workload` contain copies of results,
    and the variable `steps` has a record of each step."""
    if head == STEPS:
        return {name for name, earlier in referred.items() if earlier.record}
    if head not in _COPIES:
        return set()
    copy = variables.get(head)
    return {name for name in referred if not isinstance(copy, dict) or name in copy}


def _has(summary: Mapping[str, JsonValue], path: Path) -> bool:
    """Return whether `summary`, a result's preview, certainly has the complete value at the path of a template. If so,
    the result need not be fetched. Lists, objects and long strings in the preview may be incomplete, so they do not
    count. A field with the result's address (`_POINTERS`) counts if the preview has it."""
    if path and path[0] in _POINTERS and path[0] in summary:
        return True
    if path and path[0] in fields_of(summary.get("data")):
        return False  # the template reads a field of the result; the copy under the preview's `data` may be shortened
    at: JsonValue = summary
    for key in path:
        if isinstance(at, dict) and key in at and "_truncated" not in at:
            at = at[key]
        elif isinstance(at, list) and at and key == 0:
            at = at[0]
        else:
            return False
    if isinstance(at, str):
        return len(at.encode()) < _TRUNCATED_FROM_BYTES
    return not isinstance(at, (dict, list))


# ── fetching and putting ────────────────────────────────────────────────────────────────────────


def _check_size(needed: list[Referred], size: int) -> None:
    if size > _MAX_BYTES:
        names = ", ".join(sorted(earlier.name for earlier in needed))
        raise ToolError(
            f"the stored results that this command may read ({names}) have {size} bytes, more than {_MAX_BYTES}: "
            f"read fewer steps in one command, or {LESS_ADVICE}",
            kind="resource",
        )


async def _resolved(earlier: Referred, command: Command, plane: Plane) -> tuple[JsonValue, bytes]:
    what = f"the result of step {earlier.name!r}"
    try:
        ask = partial(plane.stored_result, earlier.ref, earlier.reference)
        found, packed = await retry_while_passing(what, ask, max_tries=COMMAND_TRIES, ids=command.log_ids)
    except AnswerTooLarge as error:
        raise ToolError(
            f"{what} ({earlier.size} bytes) is too large: {error}: {LESS_ADVICE}", kind="resource"
        ) from error
    except ControlPlaneError as error:
        kind = "client_error" if isinstance(error, ServerRefused) and error.status < 500 else "connection"
        text = (
            f"{what} cannot be fetched from the result store ({earlier.ref}), and the claim has a preview only: {error}"
            ": see the control plane's log, then run the step again"
        )
        raise ToolError(text, kind=kind, retryable=error.is_retryable) from error
    if found is None:
        raise ToolError(f"{what} is not in the result store ({earlier.ref}): run the step again", kind="client_error")
    return found, packed
