"""Lint rules NW4: mistakes in the targets of arcs (`next`), in the names of credentials, and in the use of workbook
entries."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from noetl_worker.authoring.dev.orchestration.playbook import END, Playbook
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.outline import (
    Path,
    StepPart,
    arc_target,
    list_or_empty,
    mapping,
    names_in,
    reached_from,
    step_arcs,
    step_parts,
    tool_parts,
)
from noetl_worker.models.wire import Dialect
from noetl_worker.text.secrets.auth_alias import find_alias
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools.fields import nearest


def check_flow(inspection: Inspected) -> None:
    steps = {step.name: step for step in step_parts(inspection.document) if step.name}
    for step in steps.values():
        _check_arcs(inspection, step, steps)
    if steps and not inspection.has("NW1") and not inspection.has("NW402"):
        _check_reached(inspection, steps)
    _check_workbook(inspection)
    if inspection.credentials is not None:
        known = {*inspection.credentials, *names_in(inspection.document, "keychain")}
        for tool in tool_parts(inspection.document):
            for name in ("auth", "credential"):
                _check_alias(inspection, (*tool.path, name), tool.config.get(name), known)


def _check_arcs(inspection: Inspected, step: StepPart, steps: dict[str, StepPart]) -> None:
    mode = mapping(mapping(step.value.get("next")).get("spec")).get("mode", "exclusive")
    always: str | None = None
    for path, arc in step_arcs(step):
        name = arc_target(arc)
        if not isinstance(name, str) or not name:
            continue
        place = (*path, "step")
        if name not in steps and name != END and not has_template(name):
            guess = nearest(name, sorted(steps))
            inspection.add("NW402", place, f"step '{step.name}' leads to '{name}', which is no step{guess}")
        if always is not None and mode == "exclusive":
            message = f"the arc to '{name}' is never taken: the earlier arc to '{always}' has no `when`"
            inspection.add("NW403", place, message)
        elif not isinstance(arc, dict) or arc.get("when") is None:
            always = name


def _check_reached(inspection: Inspected, steps: dict[str, StepPart]) -> None:
    if any(has_template(arc_target(arc)) for step in steps.values() for _, arc in step_arcs(step)):
        return  # such an arc may lead anywhere
    begun = {*_entries(inspection), END, *(name for step in steps.values() for name in _goto(step.value))}
    reached = begun | reached_from(begun, steps)
    for name, step in steps.items():
        if name not in reached:
            inspection.add("NW401", (*step.path, "step"), f"nothing leads to step '{name}'")


def _check_workbook(inspection: Inspected) -> None:
    """Report a workbook entry that no step runs.

    If a step names an entry that does not exist, nothing is reported here: the step probably means one of the unused
    entries.
    """
    callers = [tool.config for tool in tool_parts(inspection.document) if tool.kind == "workbook"]
    run = {str(caller.get("task") or caller.get("name")) for caller in callers}
    entries = names_in(inspection.document, "workbook")
    is_whole = run <= {*entries} and step_parts(inspection.document)
    for index, name in enumerate(entries) if is_whole else ():
        if name not in run and inspection.playbook.has(("workbook", index, "name")):
            inspection.idle.append(inspection.playbook.line_range(("workbook", index)))
            inspection.add("NW405", ("workbook", index, "name"), f"no step runs entry '{name}' of the workbook")


def _entries(inspection: Inspected) -> list[str]:
    """Return the names of steps that run without an incoming arc: the first step on each plane, and `final_step`."""
    playbook = Playbook.from_document(inspection.document)
    planes = [one for one in Dialect if inspection.plane in (None, one.value)]
    firsts = [first.name for plane in planes if (first := playbook.first(plane)) is not None]
    final = mapping(mapping(inspection.document.get("executor")).get("spec")).get("final_step")
    return [*firsts, *([final] if isinstance(final, str) else [])]


def _goto(step: Any) -> list[str]:
    """Return the names of the steps that the cases (`when`/`then`) of `step` lead to by `goto`."""
    found: list[str] = []
    for case in list_or_empty(step.get("case")) or list_or_empty(step.get("cases")):
        goto = mapping(mapping(mapping(case).get("then")).get("goto")).get("step")
        found += [goto] if isinstance(goto, str) else []
    return found


def _check_alias(inspection: Inspected, path: Path, auth: object, known: Collection[str]) -> None:
    """Check that the credential which `auth` names exists. `auth` is a name, or an object with a name."""
    if isinstance(auth, dict):
        auth = find_alias(auth)
    if isinstance(auth, str) and auth and not has_template(auth) and auth not in known:
        guess = nearest(auth, sorted(known))
        inspection.add("NW404", path, f"no credential is named '{auth}'{guess}")
