"""Playbooks: YAML is read into typed steps, or refused with one clear line.

`load_playbook` is strict: it is what `noetl-worker dev` runs before anything is started. `Playbook.of` reads a
document the way the real planes do, which register a playbook with a missing step or without `start`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from noetl_worker.authoring.dev.outline import StepPart, arcs_of, label_and_tool, list_of, target_of
from noetl_worker.authoring.dev.registration.python_model import KINDS
from noetl_worker.errors import DocumentError, PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.text import yaml_text
from noetl_worker.tools.fields import nearest

Mode = Literal["exclusive", "inclusive"]
STEP_FIELDS: Final = frozenset(
    {
        "step", "desc", "description", "tool", "input", "args", "set", "loop", "next", "spec", "output", "cases",
        "case", "when",
    }
)  # fmt: skip
_UNWRITTEN_OF_POLICY: Final = {
    "mode": "exclusive", "on_unmatched": "continue", "before": None, "after": None, "finally_": None,
}  # fmt: skip
_MOST_BYTES: Final = 64 * 1024 * 1024
NO_CURSOR: Final = "this worker does not run cursor loops; read the rows in a step before, and loop over them"
END: Final = "end"
"""An arc may lead to `end` without such a step: the planes add one."""


@dataclass(frozen=True, slots=True)
class Arc:
    """An arc to a next step."""

    step: str
    when: JsonValue = None
    set: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loop:
    collection: JsonValue
    """The unrendered `in`."""
    iterator: str = "item"
    is_parallel: bool = False
    max_in_flight: JsonValue = None
    """A number, or a template that gives it."""
    only: int | None = None
    """Index of the one item to run; None: all items."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    tool: Mapping[str, JsonValue] | Sequence[Mapping[str, JsonValue]] | None
    """A tool, a list of named tools (a task sequence), or None for a step that only routes."""
    input: Mapping[str, JsonValue] = field(default_factory=dict)
    set: Mapping[str, JsonValue] = field(default_factory=dict)
    loop: Loop | None = None
    arcs: tuple[Arc, ...] = ()
    mode: Mode = "exclusive"
    cases: Sequence[JsonValue] = ()
    when: JsonValue = None

    @property
    def is_sequence(self) -> bool:
        return isinstance(self.tool, Sequence)

    @property
    def kind(self) -> str:
        """The tool's kind, a plane's `action`; "" for a step without a tool."""
        if isinstance(self.tool, Mapping):
            return str(self.tool.get("kind", ""))
        return "task_sequence" if self.tool is not None else ""


@dataclass(frozen=True, slots=True)
class Playbook:
    path: str
    workload: Mapping[str, JsonValue]
    steps: Mapping[str, Step]
    keychain: Sequence[Mapping[str, JsonValue]] = ()
    entry: str = ""
    """`executor.spec.entry_step`, which the Python plane alone reads."""

    @classmethod
    def of(cls, document: Mapping[str, JsonValue]) -> Playbook:
        """Read a document without judging it: what cannot be read is left out."""
        metadata = fields_of(document.get("metadata"))
        steps: dict[str, Step] = {}
        for item in list_of(document.get("workflow")):
            if isinstance(item, dict) and isinstance(item.get("step"), str):
                steps[item["step"]] = _step(item)
        return cls(
            path=str(metadata.get("path") or metadata.get("name") or "unknown"),
            workload=fields_of(document.get("workload")),
            steps=steps,
            keychain=[item for item in list_of(document.get("keychain")) if isinstance(item, dict)],
            entry=str(fields_of(fields_of(document.get("executor")).get("spec")).get("entry_step") or ""),
        )

    def as_python_reads_it(self) -> Playbook:
        """Return it with a single tool that has a policy as a list of one task (recorded: single-policy)."""
        return replace(self, steps={name: _with_policy_in_list(step) for name, step in self.steps.items()})

    def first(self, plane: Dialect) -> Step | None:
        """Return the step that the plane begins with: the entry step, else the first one written; or `start`."""
        if plane is Dialect.RUST:
            return self.steps.get("start")
        return self.steps.get(self.entry) or next(iter(self.steps.values()), None)


def known_kinds() -> frozenset[str]:
    """Return the planes' kinds and those of installed packages (entry points `noetl_worker.tools`)."""
    installed = importlib.metadata.entry_points(group="noetl_worker.tools")
    return frozenset((*KINDS, *(point.name for point in installed)))


def text_of(file: Path) -> str:
    """Read a file. Bytes that are not UTF-8 are kept, so that `parse_yaml` can report their place.

    Raises:
        PlaybookError: the file cannot be read, or is no regular one: a pipe may have no end, as /dev/zero has none.
    """
    try:
        if not stat.S_ISREG((found := file.stat()).st_mode) and not stat.S_ISDIR(found.st_mode):
            raise PlaybookError(f"{file}: it is no regular file; `check -` reads standard input")
        if found.st_size > _MOST_BYTES:
            raise PlaybookError(f"{file}: it has {found.st_size:,} bytes; a playbook has {_MOST_BYTES:,} at most")
        return file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}") from error


def parse_yaml(text: str, *, otherwise: str = "not YAML") -> JsonValue:
    """Parse YAML. Raises PlaybookError, one line with the parser's reason and position that begins with `otherwise`."""
    try:
        return yaml_text.loads(text, otherwise=otherwise)
    except DocumentError as error:
        raise PlaybookError(str(error)) from error


def load_playbook(text: str, *, source: str = "playbook", kinds: Collection[str] | None = None) -> Playbook:
    """Read and check a playbook.

    Args:
        source: file name, for the message.
        kinds: tool kinds to accept; None: `known_kinds()`.

    Raises:
        PlaybookError: one line that names the file, the step and the field, and for a wrong name the nearest one.
    """
    try:
        document = parse_yaml(text)
        if not isinstance(document, dict):
            raise PlaybookError("a playbook is a mapping with metadata and workflow")
        _check(document, known_kinds() if kinds is None else kinds)
    except PlaybookError as error:
        raise PlaybookError(f"{source}: {error}") from error
    return Playbook.of(document)


# ── checking ────────────────────────────────────────────────────────────────────────────────────


def _check(document: Mapping[str, JsonValue], kinds: Collection[str]) -> None:
    if "workflow" not in document:
        raise PlaybookError(f"workflow is missing{misspelt('workflow', document)}")
    workflow = document["workflow"]
    if not isinstance(workflow, list) or not workflow:
        raise PlaybookError("workflow must be a list with at least one step")
    workload = document.get("workload")
    if workload is not None and not isinstance(workload, dict):
        raise PlaybookError("workload must be a mapping")
    names = _names(workflow)
    for item in workflow:
        _check_step(item, names, kinds)


def _names(workflow: Sequence[JsonValue]) -> list[str]:
    names: list[str] = []
    for position, item in enumerate(workflow):
        if not isinstance(item, dict):
            raise PlaybookError(f"workflow[{position}] must be a mapping with a step name")
        name = item.get("step")
        if not isinstance(name, str) or not name:
            raise PlaybookError(f"workflow[{position}].step is missing: every step needs a name")
        if name in names:
            raise PlaybookError(f"step '{name}' is there twice")
        names.append(name)
    return names


def _check_step(item: Mapping[str, JsonValue], names: Sequence[str], kinds: Collection[str]) -> None:
    where = f"step '{item['step']}'"
    for key in item:
        if key not in STEP_FIELDS:
            raise PlaybookError(f"{where}: unknown field '{key}'{nearest(str(key), sorted(STEP_FIELDS))}")
    leads_on = item.get("next") is not None and item["step"] != "start"  # recorded (tool-missing): not from there
    if item.get("tool") is None and not leads_on and item["step"] != END:
        raise PlaybookError(f"{where}: tool is missing; {{kind: noop}} does nothing")
    if item.get("tool") is not None:
        _check_tool(item["tool"], f"{where}, tool", kinds)
    for key in ("input", "args", "set"):
        if item.get(key) is not None and not isinstance(item[key], dict):
            raise PlaybookError(f"{where}: {key} must be a mapping")
    if item.get("loop") is not None:
        _check_loop(item["loop"], where)
    _check_next(item, where, names)


def _check_tool(tool: JsonValue, where: str, kinds: Collection[str]) -> None:
    if isinstance(tool, list):
        if not tool:
            raise PlaybookError(f"{where} is an empty list")
        for position, task in enumerate(tool):
            _check_tool(_labelled(task), f"{where}[{position}]", kinds)
        return
    if not isinstance(tool, dict):
        raise PlaybookError(f"{where} must be a mapping with a kind, or a list of such")
    kind = tool.get("kind")
    if not isinstance(kind, str) or not kind:
        raise PlaybookError(f"{where}.kind is missing")
    if kind not in kinds:
        raise PlaybookError(f"{where}.kind: no tool is named '{kind}'{nearest(kind, sorted(kinds))}")


def _check_loop(loop: JsonValue, where: str) -> None:
    if not isinstance(loop, dict):
        raise PlaybookError(f"{where}: loop must be a mapping with 'in' and 'iterator'")
    if "in" not in loop and loop.get("cursor") is not None:
        raise PlaybookError(f"{where}: {NO_CURSOR}")
    if "in" not in loop:
        raise PlaybookError(f"{where}: loop.in is missing{misspelt('in', loop)}")
    spec = fields_of(loop.get("spec"))
    mode = spec.get("mode", "sequential")
    if mode not in ("sequential", "parallel"):
        raise PlaybookError(f"{where}: loop.spec.mode is '{mode}', not sequential or parallel")
    limit = spec.get("max_in_flight")
    if limit is not None and not is_limit(limit):
        raise PlaybookError(f"{where}: loop.spec.max_in_flight must be a whole number of at least 1")


def is_limit(value: JsonValue) -> bool:
    """Return whether a loop may have this `max_in_flight`: a number, or an expression."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_next(item: Mapping[str, JsonValue], where: str, names: Sequence[str]) -> None:
    following = item.get("next")
    mode = fields_of(fields_of(following).get("spec")).get("mode", "exclusive")
    if mode not in ("exclusive", "inclusive"):
        raise PlaybookError(f"{where}: next.spec.mode is '{mode}', not exclusive or inclusive")
    if isinstance(following, dict) and not isinstance(following.get("arcs"), list) and "step" not in following:
        raise PlaybookError(f"{where}: next.arcs must be a list{misspelt('arcs', following)}")
    for position, (_, arc) in enumerate(arcs_of(StepPart((), item))):
        field_name = f"next.arcs[{position}].step"
        name = target_of(arc)
        if not isinstance(name, str) or not name:
            raise PlaybookError(f"{where}: {field_name} is missing")
        if name not in names and name != END:
            raise PlaybookError(f"{where}: {field_name} names no step: '{name}'{nearest(name, names)}")
        when = fields_of(arc).get("when")
        if when is not None and not isinstance(when, str):  # both planes refuse it (recorded: arcs-when-bool)
            shown = '"{{ ' + str(when).lower() + ' }}"'
            raise PlaybookError(f"{where}: next.arcs[{position}].when must be text, as {shown}")


def misspelt(name: str, there: Iterable[object]) -> str:
    """Return a hint naming the existing name nearest to a missing one, or an empty text."""
    close = difflib.get_close_matches(name, [str(one) for one in there], n=1)
    return f"; is '{close[0]}' meant to be it?" if close else ""


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def _labelled(task: JsonValue) -> JsonValue:
    """Return `{fetch: {kind: http}}` as `{name: fetch, kind: http}`, and other forms unchanged."""
    found = label_and_tool(task)
    return {"name": found[0], **found[1]} if found is not None else task


def _step(item: Mapping[str, JsonValue]) -> Step:
    spec = fields_of(fields_of(item.get("next")).get("spec"))
    tool = item.get("tool")
    if isinstance(tool, list):
        tool = [_labelled(task) for task in tool if isinstance(task, dict)]
    return Step(
        name=item["step"],
        tool=tool if isinstance(tool, (dict, list)) and tool else None,
        input={**fields_of(item.get("args")), **fields_of(item.get("input"))},
        set=fields_of(item.get("set")),
        loop=_loop(item.get("loop")),
        arcs=tuple(_arcs(item)),
        mode="inclusive" if spec.get("mode") == "inclusive" else "exclusive",
        cases=list_of(item.get("cases") or item.get("case")),
        when=item.get("when"),
    )


def _with_policy_in_list(step: Step) -> Step:
    tool = step.tool
    if not isinstance(tool, Mapping):
        return step
    spec = fields_of(tool.get("spec"))
    policy = spec.get("policy")
    if not isinstance(policy, dict):
        return step
    spec = {"timeout": None, **spec, "policy": {**_UNWRITTEN_OF_POLICY, **policy}}
    return replace(step, tool=[{"name": f"{step.name}_task", "output": None, **tool, "spec": spec}])


def _loop(loop: JsonValue) -> Loop | None:
    if not isinstance(loop, dict):
        return None
    spec = fields_of(loop.get("spec"))
    limit = spec.get("max_in_flight")
    return Loop(
        collection=loop.get("in"),
        iterator=str(loop.get("iterator") or "item"),
        is_parallel=spec.get("mode") == "parallel",
        max_in_flight=limit if is_limit(limit) else None,
    )


def _arcs(item: Mapping[str, JsonValue]) -> Iterator[Arc]:
    for _, arc in arcs_of(StepPart((), item)):
        if isinstance(arc, str):
            yield Arc(arc)
        elif isinstance(arc, dict) and isinstance(arc.get("step"), str):
            yield Arc(arc["step"], arc.get("when"), fields_of(arc.get("set")))
