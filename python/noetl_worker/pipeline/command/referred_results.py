"""Results of earlier steps that a claim has as a reference and a preview, put in the place of the preview.

Both planes hand them out so (protocol/results.md#store). A template that reads past the preview would get nothing, or
the first row as if it were all of them, silently. So what the command's own templates and code read, and the preview
does not say, is fetched: each reference once. Where they come later (`workbook`, a script at an address), all results
are. What cannot be fetched is an error.
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
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.names import STEPS, Referred
from noetl_worker.remote.plane.patience import COMMAND_TRIES, until_it_passes
from noetl_worker.text.templates.paths import Path, codes_of, names_in, paths_in
from noetl_worker.text.templates.redacted import mark_stored
from noetl_worker.text.templates.template import has_template

_MAX_BYTES: Final = MAX_RESULT_BYTES
"""Of all results that one command fetches: as much as one answer may have."""
_KEPT_TEXT_BYTES: Final = 500
"""A longer text of a preview may be the beginning of one."""
_POINTERS: Final = frozenset({"_ref", "_store", "_uri", "ref", "reference"})
"""Fields that say where the result is: whoever reads them wants no more."""
_COPIES: Final = ("ctx", "workload")
"""Names that hold copies of the others."""
_CODE_READS_NAMES: Final = re.compile(r"\b(variables|context|main|globals)\b")
"""How code of `python` gets at the command's variables; a script of `rhai` has them all as its own."""
_SCRIPT_FROM_ELSEWHERE: Final = frozenset({"python", "postgres", "duckdb", "ducklake", "snowflake"})
"""Kinds whose `script` may be an address, and what is there reads the command's variables."""


async def with_referred_results(
    variables: dict[str, Any],
    fields: JsonValue,
    cases: Sequence[JsonValue],
    command: Command,
    plane: Plane,
    redacted: list[str],
) -> dict[str, Any]:
    """The variables, with the full result of every earlier step that the command reads past its preview.

    Args:
        variables: as the claim has them; they are not changed.
        fields: the command's config and input.
        cases: its cases; a bare left side names a variable.
        command: whose they are: its tool kind (tasks of a list have their own), and its ids for the log.
        redacted: where the plane has taken something out of the results is added to it.

    Raises:
        ToolError: a result cannot be fetched, or they are too large together. It names the step.
    """
    referred = plane.rules.names.referred(variables)
    if not referred:
        return variables
    names = _needed([fields, list(cases)], command.kind, referred, variables)
    names |= referred.keys() & set(_left_sides(cases))
    needed = [earlier for earlier in referred.values() if earlier.name in names]
    _check_size(needed, sum({earlier.ref: earlier.size for earlier in needed}.values()))
    filled, stored, size = dict(variables), dict[str, JsonValue](), 0
    for earlier in needed:
        if earlier.ref not in stored:
            found, packed = await _resolved(earlier, command, plane)
            stored[earlier.ref], size = found, size + len(packed)
            _check_size(needed, size)
            redacted += mark_stored(found, packed, earlier.name, redacts=plane.rules.redacts_results)
        plane.rules.names.put(filled, earlier, stored[earlier.ref])
    return filled


# ── what the command reads ──────────────────────────────────────────────────────────────────────


def _needed(value: JsonValue, kind: str, referred: Mapping[str, Referred], variables: Mapping[str, Any]) -> set[str]:
    """The results that templates and code in a value need. `kind`: of the tool that runs code outside a task."""
    found: set[str] = set()
    waiting: list[tuple[JsonValue, str]] = [(value, kind)]
    while waiting:
        item, its_kind = waiting.pop()
        if isinstance(item, dict):
            own = item.get("kind")
            its_kind = own if isinstance(own, str) else its_kind
            if _is_read_later(item, its_kind):
                return set(referred)
            for code in codes_of(item):
                found |= _needed_by_code(code, its_kind, referred)
            waiting += [(inner, its_kind) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, its_kind) for inner in item]
        elif isinstance(item, str) and has_template(item):
            for path in paths_in(item):
                found |= _needed_by_path(path, referred, variables)
    return found


def _is_read_later(fields: Mapping[str, JsonValue], kind: str) -> bool:
    """Whether a tool fetches what reads the variables, so that nobody knows by now which: an entry of the workbook, a
    script at an address. A script of several lines is none."""
    if kind == "workbook":
        return True
    script = fields.get("script") if kind in _SCRIPT_FROM_ELSEWHERE else None
    if isinstance(script, dict):
        return not isinstance(fields_of(script.get("source")).get("code"), str)
    return isinstance(script, str) and "\n" not in script.strip()


def _left_sides(cases: Sequence[JsonValue]) -> Iterator[str]:
    """The left sides of conditions: a bare one is a variable's name."""
    for case in cases:
        conditions = fields_of(case).get("when")
        for condition in conditions if isinstance(conditions, list) else []:
            left = fields_of(condition).get("left")
            if isinstance(left, str):
                yield left


def _needed_by_code(code: str, kind: str, referred: Mapping[str, Referred]) -> set[str]:
    if kind not in ("python", "rhai"):
        return set()
    if code.lstrip().startswith("{{"):  # a template gives the code
        return set(referred)
    if kind == "python" and not _CODE_READS_NAMES.search(code):
        return set()
    return names_in(code, referred)


def _needed_by_path(path: Path, referred: Mapping[str, Referred], variables: Mapping[str, Any]) -> set[str]:
    """The results that a path needs; all of them where it takes a name that holds them as a whole."""
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
    """The results that are below a name: the planes, or `command.py`, have copies of all names there."""
    if head == STEPS:
        return {name for name, earlier in referred.items() if earlier.record}
    if head not in _COPIES:
        return set()
    copy = variables.get(head)
    return {name for name in referred if not isinstance(copy, dict) or name in copy}


def _has(summary: Mapping[str, JsonValue], path: Path) -> bool:
    """Whether a preview has what the full result has at a path: no list, no object, no long text."""
    if path and path[0] in _POINTERS and path[0] in summary:
        return True
    if path and path[0] in fields_of(summary.get("data")):
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
        found, packed = await until_it_passes(what, ask, max_tries=COMMAND_TRIES, ids=command.who)
    except AnswerTooLarge as error:
        raise ToolError(
            f"{what} ({earlier.size} bytes) is too large: {error}: {LESS_ADVICE}", kind="resource"
        ) from error
    except ControlPlaneError as error:
        kind = "client_error" if isinstance(error, ServerRefused) and error.status < 500 else "connection"
        text = (
            f"{what} cannot be fetched from the result store ({earlier.ref}), and the claim has a preview only: {error}"
        )
        raise ToolError(text, kind=kind, retryable=error.is_retryable) from error
    if found is None:
        raise ToolError(f"{what} is not in the result store ({earlier.ref}): run the step again", kind="client_error")
    return found, packed
