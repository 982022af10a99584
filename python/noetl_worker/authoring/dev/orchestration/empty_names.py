"""The search for names in templates that have no value.

Planes and workers render such a name as nothing, without a warning. So `dev` reports such names to the playbook's
author.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.authoring.dev.orchestration.execution import EmptyName, Execution
from noetl_worker.authoring.dev.orchestration.playbook import Playbook, Step
from noetl_worker.authoring.dev.orchestration.rendering import is_there
from noetl_worker.authoring.dev.template_names import read_template
from noetl_worker.authoring.outline import texts_below
from noetl_worker.models.spellings import INPUTS
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.remote.plane.names import STEPS, Names
from noetl_worker.remote.plane.python.names import PythonNames
from noetl_worker.remote.plane.rust.names import RustNames
from noetl_worker.text.templates.template import has_template

_ROOTS: Final = ("workload", "ctx", "iter", "keychain")
_NAMES: Final[Mapping[Dialect, Names]] = {Dialect.PYTHON: PythonNames(), Dialect.RUST: RustNames()}
_CODE: Final = frozenset({"code", "script", "code_b64"})
"""Fields of a tool that contain source code. Braces in source code are not templates."""


@dataclass(frozen=True, slots=True)
class EmptyNames:
    """Finds the names without a value in the templates of one execution, and adds them to `execution.empty`."""

    execution: Execution
    dialect: Dialect

    def note_arc(self, step: Step, position: int, when: JsonValue, scope: Mapping[str, JsonValue]) -> None:
        """Check the condition of an arc (an entry in a step's `next`) for names without a value.

        Skip a `ctx` name that any `set` of the playbook writes: conditions often test whether such a name exists.
        """
        text = when if not isinstance(when, str) or has_template(when) else "{{ " + when + " }}"
        self._note(step, f"next.arcs[{position}].when", text, scope, _Hidden(ctx=self._written))

    def note_set(self, step: Step, where: str, block: Mapping[str, JsonValue], scope: Mapping[str, JsonValue]) -> None:
        self._note(step, where, dict(block), scope, _Hidden())

    def note_loop(self, step: Step, collection: JsonValue, scope: Mapping[str, JsonValue]) -> None:
        self._note(step, "loop.in", collection, scope, _Hidden())

    def note_command(self, step: Step, scope: Mapping[str, JsonValue]) -> None:
        """Check the inputs and the tool of a step for names without a value. Skip names that a task of the step may
        write.
        """
        inputs = {**step.input, **_tool_inputs(step.tool)}
        is_rendered_by_worker = self.dialect is Dialect.PYTHON
        hidden = _Hidden(frozenset(inputs), is_rendered_by_worker=is_rendered_by_worker)
        if step.is_sequence:
            tasks = [fields_of(task) for task in step.tool or ()]
            labels = {str(task.get("name")) for task in tasks}
            written = frozenset(_names_set(tasks))
            hidden = _Hidden(
                frozenset({*inputs, *labels}), lambda: written, "iter" in _scopes_set(tasks), is_rendered_by_worker=True
            )
        self._note(step, "input", dict(step.input), scope, hidden)
        self._note(step, "tool", step.tool, scope, hidden)

    def _note(self, step: Step, where: str, value: Any, scope: Mapping[str, JsonValue], hidden: _Hidden) -> None:
        playbook = self.execution.playbook
        roots = {*_ROOTS, *playbook.steps} - hidden.roots
        for path, text in texts_below((), value):
            if has_template(text) and not _CODE.intersection(path):
                place = ".".join(map(str, (where, *path)))
                for name in self._empty(text, roots, scope, hidden):
                    found = EmptyName(step.name, place, name, self._reason(name, playbook, scope))
                    if found not in self.execution.empty:
                        self.execution.empty.append(found)

    def _empty(
        self, text: str, roots: Collection[str], scope: Mapping[str, JsonValue], hidden: _Hidden
    ) -> Iterator[str]:
        reading = read_template((), text)
        for chain in reading.chains:
            root, *below = chain.names
            if chain.may_be_missing or root not in reading.free or root not in roots:
                continue
            if root == "keychain":
                if len(below) > 1 and not self._keychain_has(below[0], below[1]):
                    yield ".".join(chain.names)
            elif not (
                is_there(chain.names, scope, self.dialect)
                or hidden.has(root, below)
                or (hidden.is_rendered_by_worker and self._is_referred(root, scope))
            ):
                yield ".".join(chain.names)

    def _keychain_has(self, name: str, field_name: str) -> bool:
        return field_name in self.execution.keychain.get(name, ())

    def _reason(self, name: str, playbook: Playbook, scope: Mapping[str, JsonValue]) -> str:
        root = name.partition(".")[0]
        if root == "keychain":
            entry = name.split(".")[1]
            is_known = entry in self.execution.keychain
            return "the entry has no such field" if is_known else f"no entry '{entry}' has been resolved"
        if root == "ctx":
            return "no `set` has written this name"
        if root in ("workload", "iter"):
            return f"the {'workload' if root == 'workload' else 'item'} has no such key"
        if root not in self.execution.completed_steps:
            return f"step '{root}' has not given a result yet"
        if self._is_referred(root, scope):
            reader = "a list of tasks" if self.dialect is Dialect.RUST else "the tool of a step"
            return f"the result of step '{root}' is too large for the context; {reader} can read it"
        return f"the result of step '{root}' has no such key"

    def _is_referred(self, root: str, scope: Mapping[str, JsonValue]) -> bool:
        """Return whether templates see only a reference to, and a preview of, the large result of step `root`."""
        seen = {name: scope[name] for name in (root, STEPS) if name in scope}
        return "_ref" in fields_of(scope.get(root)) or root in _NAMES[self.dialect].referred(seen)

    def _written(self) -> frozenset[str]:
        blocks = [
            {"set": step.set, "arcs": [{"set": arc.set} for arc in step.arcs], "tool": step.tool}
            for step in self.execution.playbook.steps.values()
        ]
        return frozenset(_names_set(blocks))


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Names that `dev` does not report as empty, because the worker or a `set` may still give these names a value."""

    roots: frozenset[str] = frozenset()
    ctx: Callable[[], frozenset[str]] = frozenset
    """Function that returns the names in `ctx` that a `set` may write. `dev` does not report these names as empty. The
    function is slow, so it is called only for a `ctx` name without a value."""
    is_all_of_iter: bool = False
    """True if a task of the step sets a variable of the loop item, such as `iter.total`. `dev` then reports no name
    that begins with `iter.` as empty."""
    is_rendered_by_worker: bool = False
    """True if the worker, not the plane, renders the checked templates. The plane sends only a reference to a large
    result, but the worker can fetch the result. So `dev` reports no key of such a result as empty."""

    def has(self, root: str, below: list[str]) -> bool:
        return (root == "ctx" and bool(below) and below[0] in self.ctx()) or (root == "iter" and self.is_all_of_iter)


def _tool_inputs(tool: Any) -> dict[str, JsonValue]:
    tools = tool if isinstance(tool, list) else [tool]
    return {
        name: value for one in tools for part in INPUTS for name, value in fields_of(fields_of(one).get(part)).items()
    }


def _sets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from map(str, fields_of(value.get("set")))
        for item in value.values():
            yield from _sets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _sets(item)


def _names_set(value: Any) -> Iterator[str]:
    for name in _sets(value):
        scope, _, rest = name.partition(".")
        yield (rest or scope).partition(".")[0]


def _scopes_set(value: Any) -> set[str]:
    return {name.partition(".")[0] for name in _sets(value)}
