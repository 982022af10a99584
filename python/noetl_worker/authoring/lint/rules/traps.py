"""Lint rules NW5: parts of a playbook that run without an error, but not as the author expects (docs/playbooks.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.outline import (
    Path,
    StepPart,
    arc_target,
    mapping,
    reached_from,
    step_arcs,
    step_parts,
    tool_parts,
)

_MOST_ARCS: Final = 1_000
"""Largest number of arcs in a playbook for which `noetl-worker check` computes the steps reachable from each step. The
work grows with the square of the number of arcs."""
Arcs: TypeAlias = list[tuple[Path, Mapping[str, Any], str]]
"""Arcs of a step, each as its path, the arc as written, and the name of the target step."""


def check_traps(inspection: Inspected) -> None:
    steps = {step.name: step for step in step_parts(inspection.document) if step.name}
    arcs_there = sum(len(step_arcs(step)) for step in steps.values())
    reached = {name: reached_from([name], steps) for name in steps} if arcs_there <= _MOST_ARCS else {}
    for step in steps.values():
        arcs = [(path, mapping(arc), name) for path, arc in step_arcs(step) if isinstance(name := arc_target(arc), str)]
        is_inclusive = mapping(mapping(step.value.get("next")).get("spec")).get("mode") == "inclusive"
        _check_none_holds(inspection, step, arcs)
        _check_skipped(inspection, arcs, reached, is_inclusive=is_inclusive)
        if is_inclusive and reached:
            _check_join(inspection, arcs, reached)
    for tool in tool_parts(inspection.document):
        if tool.kind == "http" and not tool.is_task and mapping(tool.config.get("retry")).get("on_success"):
            message = "`while` and `next_call` are rendered before the first page arrives"
            inspection.add("NW515", inspection.playbook.key_place((*tool.path, "retry", "on_success")), message)


def _check_none_holds(inspection: Inspected, step: StepPart, arcs: Arcs) -> None:
    conditions = [arc.get("when") for _, arc, _ in arcs]
    if conditions and all(isinstance(when, str) for when in conditions) and not _are_opposites(conditions):
        message = f"nothing follows step '{step.name}' if no arc holds, and the execution never ends"
        inspection.add("NW512", inspection.playbook.key_place((*step.path, "next")), message)


def _are_opposites(conditions: list[Any]) -> bool:
    """Return whether two of the conditions are opposites, such as `x == 1` and `x != 1`, so that one is always true."""
    texts = {_without_braces(when.strip()) for when in conditions}
    return any(other in texts for text in texts for other in _opposites(text))


def _without_braces(text: str) -> str:
    if not (text.startswith("{{") and text.endswith("}}")):
        return text
    return text[2:-2].removeprefix("-").removesuffix("-").strip()


def _opposites(text: str) -> list[str]:
    pairs = (("==", "!="), (">=", "<"), (">", "<="), (" is not ", " is "), (" not in ", " in "))
    swapped = [text.replace(one, other) for one, other in pairs if one in text]
    return [f"not {text}", f"not ({text})", *swapped]


def _check_skipped(
    inspection: Inspected, arcs: Arcs, reached: Mapping[str, frozenset[str]], *, is_inclusive: bool
) -> None:
    """Report a step that a later arc cannot enter, because an earlier arc to the step was not taken.

    If a plane does not take an arc, it marks the arc's target step as skipped, and never enters that step.
    """
    seen: set[str] = set()
    for path, arc, name in arcs:
        if not is_inclusive and name in seen:
            message = f"step '{name}' is never entered: the plane skips one of the two arcs to the step"
            inspection.add("NW513", (*path, "step"), message)
            continue
        seen.add(name)
        may_be_passed_over = not is_inclusive or arc.get("when") is not None
        others = [other for _, _, other in arcs if other != name] if reached else []
        by = next((other for other in others if name in reached.get(other, ())), None)
        if may_be_passed_over and by is not None:
            message = f"step '{name}' is never entered from '{by}' once the plane has skipped this arc"
            inspection.add("NW513", (*path, "step"), message)


def _check_join(inspection: Inspected, arcs: Arcs, reached: Mapping[str, frozenset[str]]) -> None:
    targets = list(dict.fromkeys(name for _, _, name in arcs))
    for index, name in enumerate(targets):
        for other in targets[:index]:
            both = (reached.get(name, frozenset()) | {name}) & (reached.get(other, frozenset()) | {other})
            if both:
                message = f"step '{min(both)}' is entered after the first of two ways, perhaps again after the other"
                inspection.add("NW514", (*arcs[0][0][:3], "spec", "mode"), message)
                return
