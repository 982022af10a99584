"""The steps, arcs, tools and strings of a playbook, each with its path. Values of an unexpected type are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from noetl_worker.models.wire import JsonValue

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indexes that lead to a value in a document: ("workflow", 0, "tool", "kind")."""


@dataclass(frozen=True, slots=True)
class StepPart:
    """A step as written in its playbook."""

    path: Path
    value: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.value.get("step", ""))


@dataclass(frozen=True, slots=True)
class ToolPart:
    """A tool as written in its playbook: the only tool of a step, or one task of a step's list of tasks."""

    path: Path
    config: Mapping[str, Any]
    label: str = ""
    """Name of the task; "" for a tool that is not in a list of tasks."""
    is_task: bool = False
    position: int = 0
    """Index of the task in its list of tasks."""
    labels: Sequence[str] = ()
    """Names of all tasks in the list."""

    @property
    def kind(self) -> str:
        return str(self.config.get("kind", ""))


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def list_or_empty(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def names_in(document: Mapping[str, object], part: str) -> list[str]:
    """Return the names of the entries in `keychain` or `workbook`.

    Args:
        part: "keychain" or "workbook".
    """
    return [str(mapping(entry).get("name")) for entry in list_or_empty(document.get(part))]


def step_parts(document: Mapping[str, object]) -> list[StepPart]:
    items = enumerate(list_or_empty(document.get("workflow")))
    return [StepPart(("workflow", index), item) for index, item in items if isinstance(item, dict)]


def step_arcs(step: StepPart) -> list[tuple[Path, JsonValue]]:
    """Return the arcs of a step as written, each with its path.

    `next` may be {arcs: [...]}, one {step: ...}, a list of arcs, or the name of one step.
    """
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
    """Return the names of all steps that arcs lead to from these steps, directly or through other steps."""
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
    """Yield the tools of all steps and workbook entries. Each task of a list counts as one tool."""
    for step in step_parts(document):
        yield from step_tools(step)
    for index, entry in enumerate(list_or_empty(document.get("workbook"))):
        yield from _tools(("workbook", index, "tool"), mapping(entry).get("tool"))


def kinds_in(document: Mapping[str, object]) -> set[str]:
    return {tool.kind for tool in tool_parts(document)}


def tool_policy(tool: ToolPart) -> tuple[Path, Any]:
    """Return the path and value of a tool's policy, from `spec.policy` or else `policy`. A missing value is None."""
    spec = mapping(tool.config.get("spec"))
    if "policy" in spec:
        return (*tool.path, "spec", "policy"), spec["policy"]
    return (*tool.path, "policy"), tool.config.get("policy")


def step_tools(step: StepPart) -> Iterator[ToolPart]:
    return _tools((*step.path, "tool"), step.value.get("tool"))


def policy_rules(tool: ToolPart) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the path and value of each rule of a tool's policy, which is an object with `rules` or a list of rules."""
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
    """Yield a ToolPart for each task of a list of tasks.

    Args:
        path: path of the list in the playbook.
        tasks: value at the path; nothing is yielded if it is not a list.
    """
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
    """Yield each string inside a value, with its path. Keys of objects are not yielded."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_below((*path, key), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts_below((*path, index), item)
