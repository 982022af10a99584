"""The inputs of a step that is run alone. The inputs come from a file, or from the step's command in a stored run."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml
from noetl_worker.authoring.dev.orchestration.step_alone import ItemPlace, StepAlone
from noetl_worker.authoring.dev.stored_runs.runs import LAST, StoredRow, StoredRuns
from noetl_worker.engine.pure.redact import MARK
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.text.json_text import dumps, loads
from noetl_worker.tools.fields import nearest

_OF_THE_RUN: Final = frozenset(
    {"execution_id", "catalog_id", "job", "event", "output", "path", "steps", "server_url", "nats_url"}
    | {"ctx", "workload", "iter", "loop", "loop_index", "_index", "_total", "_keychain_manifest"}
)
"""Names to which the plane gives a value in every run. A file of inputs may also set these names, although no step
declares these names."""
_MOST_RUNS: Final = 100
_MOST_NAMED: Final = 5


class _NotSeen(Exception):
    """Error for a stored run that has no inputs of the wanted step. The text says why."""


def step_with(
    name: str,
    dialect: Dialect,
    playbook: Playbook,
    *,
    file: Path | None,
    run: str | None,
    overrides: Collection[str] = (),
) -> StepAlone:
    """Return one step of a playbook with its inputs, ready to be run without the steps before it.

    Args:
        name: the step's name, or one item of its loop: `each[2]`.
        file: a YAML or JSON object of names and values, which win over the values in `run`.
        run: the id of a stored run; `last` is the newest run in which this step ran.
        overrides: dotted names of the workload whose values in the run are ignored.

    Raises:
        PlaybookError: the step, run, item or file does not exist, or the stored runs cannot be read.
    """
    step, item = _parsed(name)
    if step not in playbook.steps:
        raise PlaybookError(f"--step {name}: no such step{nearest(step, list(playbook.steps))}")
    loop = playbook.steps[step].loop
    if item is not None and (loop is None or run is None):
        why = "items are read from a run: give --run ID" if loop is not None else "the step has no loop: omit [...]"
        raise PlaybookError(f"--step {name}: {why}")
    given = _read_names(file) if file is not None else {}
    _refuse_unknown(given, playbook, step, f"--with {file}")
    names, place = _names_in_run(run, step, item, playbook, dialect) if run is not None else ({}, None)
    for other in {name.removeprefix("workload.").partition(".")[0] for name in overrides}:
        names.pop(other, None)
    if loop is not None and item is None:
        names.pop(loop.iterator, None)
    return StepAlone(step, {**names, **_flat(given)}, given, place)


def _parsed(name: str) -> tuple[str, int | None]:
    head, bracket, number = name.removesuffix("]").rpartition("[")
    return (head, int(number)) if bracket and name.endswith("]") and number.isdecimal() else (name, None)


def _flat(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the object `given` with the content of `workload` and `ctx` moved to the top level."""
    inner = [found for name in ("workload", "ctx") if isinstance(found := given.get(name), dict)]
    flat = {name: value for name, value in given.items() if name not in ("workload", "ctx")}
    return {**{name: value for found in inner for name, value in found.items()}, **flat}


def _read_names(file: Path) -> dict[str, JsonValue]:
    try:
        form = "not JSON" if file.suffix == ".json" else "neither JSON nor YAML"
        found = parse_yaml(file.read_text(encoding="utf-8", errors="surrogateescape"), otherwise=form)  # JSON is YAML
    except (OSError, PlaybookError) as error:
        raise PlaybookError(f"--with {file}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict):
        raise PlaybookError(f'--with {file}: write an object of names, for example {{"start": {{"rows": []}}}}')
    return {str(name): value for name, value in found.items()}


def _refuse_unknown(given: Mapping[str, JsonValue], playbook: Playbook, step: str, source: str) -> None:
    """Raise PlaybookError for a name in `given` that nothing in the step uses.

    Skip the check for a step that runs a workbook entry: the entry uses the names, not the step.
    """
    words = _words(asdict(playbook.steps[step]))
    if "workbook" in words:
        return
    known = {*words, *playbook.steps, *map(str, playbook.workload)}
    workload = given.get("workload")
    for name in map(str, (*given, *(workload if isinstance(workload, dict) else ()))):
        if name not in known and name not in _OF_THE_RUN:
            raise PlaybookError(f"{source}: step {step} uses no name {name!r}{nearest(name, sorted(known))}")


def _words(value: object) -> set[str]:
    """Return all texts in a value, keys included, and all words in these texts.

    The words of a step contain every name that the step itself uses.
    """
    if isinstance(value, str):
        return {value, *re.findall(r"\w+", value)}
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return set().union(*map(_words, value)) if isinstance(value, (list, tuple)) else set()


def _names_in_run(
    run: str, step: str, item: int | None, playbook: Playbook, dialect: Dialect
) -> tuple[dict[str, JsonValue], ItemPlace | None]:
    """Return the names and values that a step saw in a stored run.

    For a given loop item `item`, also return its index and the number of items, otherwise None.

    Leave out a name of the workload whose stored value is redacted. The step then gets the value from the playbook's
    workload.
    """
    stored = StoredRuns()
    try:
        found, place = _saw(stored, run, step, item, playbook, dialect)
    except _NotSeen as error:
        raise PlaybookError(f"--run {run}: {error}") from error
    except (OSError, sqlite3.Error) as error:
        advice = "; if it recurs, move the file away"
        what = f"{stored.file}: {error}{advice}" if isinstance(error, sqlite3.Error) else error
        raise PlaybookError(f"--run {run}: the stored runs cannot be read: {what}") from error
    names = {key: value for key, value in _flat(found).items() if key not in _OF_THE_RUN}
    lost = [key for key, value in names.items() if MARK.encode() in dumps(value)]
    return {key: value for key, value in names.items() if key not in lost or key not in playbook.workload}, place


def _saw(
    stored: StoredRuns, run: str, step: str, item: int | None, playbook: Playbook, dialect: Dialect
) -> tuple[dict[str, JsonValue], ItemPlace | None]:
    """Return the names and values that a step saw in the stored run `run`.

    If `run` is `last`, search the newest run of the playbook that ran this step.

    Raises _NotSeen if the run (for `last`: every run) lacks the step. The text gives the reason for the newest run.
    """
    reasons = []
    for name in _matching_runs(stored, playbook, dialect) if run == LAST else [run]:
        try:
            return _seen_in(stored.find(name), step, item, playbook, dialect)
        except _NotSeen as error:
            reasons.append(str(error))
    ids = ", ".join(islice(_matching_runs(stored, playbook, dialect), _MOST_NAMED))
    none = f"no run of {playbook.path} with --dialect {dialect.value} is stored"
    raise _NotSeen("; ".join([*reasons[:1], f"the newest runs are {ids}" if ids else none]))


def _matching_runs(stored: StoredRuns, playbook: Playbook, dialect: Dialect) -> Iterator[str]:
    """Yield the ids of the stored runs of this playbook on a plane of this dialect, the newest first."""
    for run in map(str, stored.newest(_MOST_RUNS)):
        executions = map(_plain, stored.find(run, "executions"))
        if any((one["dialect"], one["path"]) == (dialect.value, playbook.path) for one in executions):
            yield run


def _seen_in(
    rows: Sequence[StoredRow], step: str, item: int | None, playbook: Playbook, dialect: Dialect
) -> tuple[dict[str, JsonValue], ItemPlace | None]:
    """Return the names and values that the step saw in a stored run.

    For a given loop item `item`, also return its index and the number of items, otherwise None.

    Raises _NotSeen if the run is missing, of another playbook or dialect, or did not run the step or item.
    """
    runs = [_plain(row) for row in rows if row.kind == "executions"]
    if not runs:
        raise _NotSeen("no run with this id is stored")
    if (was := runs[0]["dialect"]) != dialect.value:
        raise _NotSeen(f"the run used --dialect {was}")
    ours = {one["execution_id"] for one in runs if one["path"] == playbook.path}
    if not ours:
        raise _NotSeen(f"the run is of {runs[0]['path']}, not of {playbook.path}")
    commands = [command for command in _commands(rows) if command.execution_id in ours]
    of_step = [one for one in commands if one.step == step]
    if found := [one for one in of_step if item in (None, one.item)]:
        names = _resolved(found[-1].context.get("render_context"), rows)
        return names, _place(found[-1], rows) if item is not None else None
    if items := [one.item for one in of_step if one.item is not None]:
        ran = f"items {min(items)} to {max(items)}" if len(items) > 1 else f"item {items[0]}"
        raise _NotSeen(f"the run has no item {item} of step {step}, only {ran}")
    ran = ", ".join(dict.fromkeys(one.step for one in commands)) or "nothing"
    raise _NotSeen(f"the run has no step {step}, only {ran}")


class _StoredCommand(NamedTuple):
    execution_id: int
    step: str
    item: int | None
    """The loop item's index; None if the command belongs to no loop."""
    meta: Mapping[str, Any]
    context: Mapping[str, JsonValue]


def _commands(rows: Sequence[StoredRow]) -> Iterator[_StoredCommand]:
    for row in rows:
        if row.kind == "commands":
            plain, value = _plain(row), loads(row.contents)["json"]
            meta, step = value["meta"], plain["node"].removesuffix(":task_sequence")
            item = meta.get("loop_iteration_index", meta.get("iteration_index"))
            yield _StoredCommand(plain["execution_id"], step, item, meta, value["context"])


def _place(command: _StoredCommand, rows: Sequence[StoredRow]) -> ItemPlace:
    """Return the index of a command's loop item, and the number of items in the loop.

    The Rust plane writes the loop's size into the command's meta, the Python plane into the command's inputs.
    """
    assert command.item is not None
    size = command.meta.get("iteration_total")
    if size is None:
        size = _resolved(command.context["input"], rows)["__loop_collection_size"]
    return ItemPlace(command.item, size)


def _resolved(value: JsonValue, rows: Sequence[StoredRow]) -> dict[str, JsonValue]:
    """Return the object `value`. If `value` is only a reference, return the stored object.

    The Python plane stores large objects separately (protocol/command.md#python-plane).
    """
    if isinstance(value, dict) and value.get("kind") == "result_ref":
        value = next((loads(row.contents)["json"]["data"] for row in rows if row.id == value["ref"]), {})
    return fields_of(value)


def _plain(row: StoredRow) -> dict[str, Any]:
    plain: dict[str, Any] = loads(row.contents)["plain"]
    return plain
