"""The steps of an execution for the execution page, and the arcs between the steps. `is_taken` marks each taken arc."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from noetl_worker.authoring.outline import StepPart, arc_target, mapping, step_arcs, step_parts
from noetl_worker.authoring.run_page.run import RunArc, RunCommand, RunStep

_END: Final = "end"
"""Name of the last step, which the planes add to a playbook (recorded: catalog-resource)."""


def run_steps(document: Mapping[str, Any], commands: Sequence[RunCommand]) -> dict[str, RunStep]:
    """Return the steps by name: first the playbook's steps in its order, then steps found only in commands.

    Args:
        document: the parsed playbook; {} if it is not known.
        commands: the commands of the execution.
    """
    steps = {part.name: _step(part) for part in step_parts(document) if part.name}
    for command in commands:
        step = steps.setdefault(command.step, RunStep(command.step))
        step.kind = step.kind or command.kind
    taken = _taken(steps, commands)
    led_to = {way.to for step in steps.values() for way in step.ways} | {to for _, to in taken}
    if _END in steps and _END not in led_to and not any(command.step == _END for command in commands):
        del steps[_END]
    for step in steps.values():
        ways = [replace(way, is_taken=(step.name, way.to) in taken) for way in step.ways if way.to in steps]
        known = {way.to for way in ways}
        ways += [RunArc(to, is_taken=True) for name, to in taken if name == step.name and to not in known]
        step.ways = ways
    return steps


def _taken(steps: Mapping[str, RunStep], commands: Sequence[RunCommand]) -> dict[tuple[str, str], None]:
    """Return the arcs that the execution took, as an ordered set: a dict whose keys are pairs (step, next step).

    On the Python plane a command names its previous step. On the Rust plane the previous step is inferred: among the
    steps with an arc to the command's step, it is the last that ended before the command was issued
    (protocol/events.md).
    """
    before: dict[str, list[str]] = {}
    for step in steps.values():
        for way in step.ways:
            before.setdefault(way.to, []).append(step.name)
    ended: dict[str, list[float]] = {}
    for command in commands:
        if command.ended is not None:
            ended.setdefault(command.step, []).append(command.ended)
    taken: dict[tuple[str, str], None] = {}
    for command in commands:
        name = command.after if command.after in steps else _last_ended(before.get(command.step, ()), ended, command)
        goes_round = name == command.step and name not in before.get(command.step, ())  # the next item of a loop
        if name is not None and not goes_round:
            taken[name, command.step] = None
    return taken


def _last_ended(names: Iterable[str], ended: Mapping[str, Sequence[float]], command: RunCommand) -> str | None:
    if command.issued is None:
        return None
    issued = command.issued
    found = [(at, name) for name in names if name != command.step for at in ended.get(name, ()) if at <= issued]
    return max(found)[1] if found else None


def _step(part: StepPart) -> RunStep:
    tool, text = part.value.get("tool"), part.value.get("desc") or part.value.get("description") or ""
    ways = [
        RunArc(target, str(mapping(arc).get("when") or ""))
        for _, arc in step_arcs(part)
        if isinstance(target := arc_target(arc), str)
    ]
    kind = "task_sequence" if isinstance(tool, list) else str(mapping(tool).get("kind") or "")
    return RunStep(part.name, kind, str(text), isinstance(part.value.get("loop"), dict), ways)
