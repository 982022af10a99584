"""A playbook's YAML, parsed into typed steps in the way of the real planes.

This module ignores mistakes in a playbook. `noetl-worker check` reports the mistakes.
"""

from __future__ import annotations

import importlib.metadata
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from noetl_worker.authoring.dev.registration.python_model import KINDS
from noetl_worker.authoring.outline import StepPart, label_and_tool, list_or_empty, step_arcs
from noetl_worker.errors import DocumentError, PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.text import yaml_text

Mode = Literal["exclusive", "inclusive"]
_UNWRITTEN_OF_POLICY: Final = {
    "mode": "exclusive", "on_unmatched": "continue", "before": None, "after": None, "finally_": None,
}  # fmt: skip
_MOST_BYTES: Final = 64 * 1024 * 1024
NO_CURSOR: Final = "this worker does not run cursor loops; read the rows in a step before, and loop over them"
END: Final = "end"
"""Name of a step that the planes add to every playbook. So an arc may lead to `end` without such a step in the file."""


@dataclass(frozen=True, slots=True)
class Arc:
    """A `next` entry of a step: the name of the following step, the condition, and a `set`."""

    step: str
    when: JsonValue = None
    set: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loop:
    collection: JsonValue
    """The loop's `in` (the items to loop over) as written, before its templates are rendered."""
    iterator: str = "item"
    is_parallel: bool = False
    max_in_flight: JsonValue = None
    """Largest number of items in flight, or a template for this number."""
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
        """The tool's kind, which a command has as its `action`; "" for a step without a tool."""
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
    """Name of the first step to run, from `executor.spec.entry_step`. Only the Python plane reads this field."""

    @classmethod
    def from_document(cls, document: Mapping[str, JsonValue]) -> Playbook:
        """Read a parsed YAML document. Values of a wrong type are left out."""
        metadata = fields_of(document.get("metadata"))
        steps: dict[str, Step] = {}
        for item in list_or_empty(document.get("workflow")):
            if isinstance(item, dict) and isinstance(item.get("step"), str):
                steps[item["step"]] = _step(item)
        return cls(
            path=str(metadata.get("path") or metadata.get("name") or "unknown"),
            workload=fields_of(document.get("workload")),
            steps=steps,
            keychain=[item for item in list_or_empty(document.get("keychain")) if isinstance(item, dict)],
            entry=str(fields_of(fields_of(document.get("executor")).get("spec")).get("entry_step") or ""),
        )

    def as_python_reads_it(self) -> Playbook:
        """Return a copy of the playbook in which a single tool with a policy is a list of one task.

        The Python plane reads a playbook in this way (recorded: single-policy).
        """
        return replace(self, steps={name: _with_policy_in_list(step) for name, step in self.steps.items()})

    def first(self, plane: Dialect) -> Step | None:
        """Return the step with which a plane begins, or None.

        The Rust plane begins with `start`; the Python plane with the entry step, or else with the first step.
        """
        if plane is Dialect.RUST:
            return self.steps.get("start")
        return self.steps.get(self.entry) or next(iter(self.steps.values()), None)


def known_kinds() -> frozenset[str]:
    """Return the tool kinds of the planes and of installed plug-ins (entry points `noetl_worker.tools`)."""
    installed = importlib.metadata.entry_points(group="noetl_worker.tools")
    return frozenset((*KINDS, *(point.name for point in installed)))


def read_file_text(file: Path) -> str:
    """Return the text of a file. Bytes that are not UTF-8 become surrogates, and `parse_yaml` reports their place.

    Raises:
        PlaybookError: the file cannot be read, is no regular file, or is too large.
    """
    try:
        if not stat.S_ISREG((found := file.stat()).st_mode) and not stat.S_ISDIR(found.st_mode):
            raise PlaybookError(f"{file}: not a regular file: name a file; `check -` reads standard input")
        if found.st_size > _MOST_BYTES:
            raise PlaybookError(f"{file}: divide the file: it has {found.st_size:,} bytes, {_MOST_BYTES:,} are allowed")
        return file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}") from error


def parse_yaml(text: str, *, otherwise: str = "not YAML") -> JsonValue:
    """Parse YAML. Raises PlaybookError with one line: `otherwise`, the parser's reason, and the position."""
    try:
        return yaml_text.loads(text, otherwise=otherwise)
    except DocumentError as error:
        raise PlaybookError(str(error)) from error


def read_playbook(text: str) -> Playbook:
    """Parse a playbook from a YAML text. Parts of a wrong type, such as a step that is a number, are left out.

    Raises PlaybookError if the text is not YAML.
    """
    return Playbook.from_document(fields_of(parse_yaml(text)))


def is_limit(value: JsonValue) -> bool:
    """Return whether a value is allowed as `max_in_flight`: a whole number of at least 1, or a template."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _labelled(task: JsonValue) -> JsonValue:
    """Return a task `{fetch: {kind: http}}` as `{name: fetch, kind: http}`, and any other task unchanged."""
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
        cases=list_or_empty(item.get("cases") or item.get("case")),
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
    for _, arc in step_arcs(StepPart((), item)):
        if isinstance(arc, str):
            yield Arc(arc)
        elif isinstance(arc, dict) and isinstance(arc.get("step"), str):
            yield Arc(arc["step"], arc.get("when"), fields_of(arc.get("set")))
