"""The parts of a playbook with their paths: steps, arcs, tools, texts. Parts of the wrong shape are left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from noetl_worker.models.wire import JsonValue

Path: TypeAlias = tuple[str | int, ...]
"""Path of a value: ("workflow", 0, "tool", "kind")."""


@dataclass(frozen=True, slots=True)
class StepPart:
    path: Path
    value: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.value.get("step", ""))


@dataclass(frozen=True, slots=True)
class ToolPart:
    """A tool of a step, or a task of a list."""

    path: Path
    config: Mapping[str, Any]
    label: str = ""
    is_task: bool = False
    position: int = 0
    labels: Sequence[str] = ()
    """Labels of all tasks in its list."""

    @property
    def kind(self) -> str:
        return str(self.config.get("kind", ""))


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def list_or_empty(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def names_in(document: Mapping[str, object], part: str) -> list[str]:
    """Return the names of a keychain's or workbook's entries."""
    return [str(mapping(entry).get("name")) for entry in list_or_empty(document.get(part))]


def step_parts(document: Mapping[str, object]) -> list[StepPart]:
    items = enumerate(list_or_empty(document.get("workflow")))
    return [StepPart(("workflow", index), item) for index, item in items if isinstance(item, dict)]


def step_arcs(step: StepPart) -> list[tuple[Path, JsonValue]]:
    """Return the arcs as written, in any form of `next`: {arcs: [...]}, one {step: ...}, a list, one name."""
    path, following = (*step.path, "next"), step.value.get("next")
    if isinstance(following, dict) and "arcs" in following:
        return [((*path, "arcs", index), arc) for index, arc in enumerate(list_or_empty(following["arcs"]))]
    if isinstance(following, list):
        return [((*path, index), arc) for index, arc in enumerate(following)]
    is_none = following is None or (isinstance(following, dict) and "step" not in following)
    return [] if is_none else [(path, following)]


def arc_target(arc: JsonValue) -> JsonValue:
    """Return the name of the arc's target step, as written."""
    return arc.get("step") if isinstance(arc, dict) else arc


def reached_from(names: Iterable[str], steps: Mapping[str, StepPart]) -> frozenset[str]:
    """Return the targets of the arcs of these steps, of the arcs of the targets, and so on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        step = steps.get(waiting.pop())
        targets = [arc_target(arc) for _, arc in step_arcs(step)] if step is not None else []
        new = {target for target in targets if isinstance(target, str)} - found
        found |= new
        waiting += new
    return frozenset(found)


def tool_parts(document: Mapping[str, object]) -> Iterator[ToolPart]:
    """Yield the tools of the steps and the workbook, each task of a list by itself."""
    for step in step_parts(document):
        yield from step_tools(step)
    for index, entry in enumerate(list_or_empty(document.get("workbook"))):
        yield from _tools(("workbook", index, "tool"), mapping(entry).get("tool"))


def kinds_in(document: Mapping[str, object]) -> set[str]:
    return {tool.kind for tool in tool_parts(document)}


def tool_policy(tool: ToolPart) -> tuple[Path, Any]:
    spec = mapping(tool.config.get("spec"))
    if "policy" in spec:
        return (*tool.path, "spec", "policy"), spec["policy"]
    return (*tool.path, "policy"), tool.config.get("policy")


def step_tools(step: StepPart) -> Iterator[ToolPart]:
    return _tools((*step.path, "tool"), step.value.get("tool"))


def policy_rules(tool: ToolPart) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the rules of a tool's policy, which is an object with `rules` or the list itself."""
    path, policy = tool_policy(tool)
    rules, path = (policy.get("rules"), (*path, "rules")) if isinstance(policy, dict) else (policy, path)
    yield from (((*path, index), rule) for index, rule in enumerate(list_or_empty(rules)) if isinstance(rule, dict))


def _tools(path: Path, tool: object) -> Iterator[ToolPart]:
    if isinstance(tool, list):
        yield from task_parts(path, tool)
    elif isinstance(tool, dict):
        yield ToolPart(path, tool)
        for name in ("tasks", "tool_config"):
            yield from task_parts((*path, name), tool.get(name))


def task_parts(path: Path, tasks: object) -> Iterator[ToolPart]:
    """Yield the tasks of a list, each with the labels of all."""
    parts = [part for index, task in enumerate(list_or_empty(tasks)) for part in _task((*path, index), task)]
    labels = [part.label for part in parts]
    yield from (replace(part, position=position, labels=labels) for position, part in enumerate(parts))


def _task(path: Path, task: object) -> Iterator[ToolPart]:
    if (labelled := label_and_tool(task)) is not None:
        label, tool = labelled
        yield ToolPart((*path, label), tool, str(label), is_task=True)
    elif isinstance(task, dict):
        yield ToolPart(path, task, str(task.get("name") or f"task_{path[-1]}"), is_task=True)


def label_and_tool(task: object) -> tuple[str, Mapping[str, Any]] | None:
    """Return the label and tool of a task written as `{fetch: {kind: http}}`, or None for any other form."""
    if isinstance(task, dict) and "kind" not in task and len(task) == 1:
        ((label, tool),) = task.items()
        return (label, tool) if isinstance(tool, dict) else None
    return None


def texts_below(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Yield every text with its path, except keys."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_below((*path, key), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts_below((*path, index), item)
