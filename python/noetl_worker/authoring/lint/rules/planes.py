"""Lint rules NW5: parts of a playbook that work on only one of the planes (recorded: protocol/tasks.md,
tests/compat/values)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.orchestration.python_templates import ONE_NAME
from noetl_worker.authoring.dev.orchestration.rendering import UNKNOWN_FILTERS
from noetl_worker.authoring.dev.plane_rules.rust_task_texts import LEFT_TO_WORKER, names_of_plane
from noetl_worker.authoring.dev.registration.python_model import KINDS
from noetl_worker.authoring.dev.template_names import Reading, Word
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.lint.rules.templates import TOKEN
from noetl_worker.authoring.outline import Path, arc_target, mapping, step_arcs, step_parts, tool_parts
from noetl_worker.text.templates.template import has_template

_PYTHON_ONLY: Final = frozenset({"_prev", "results"})
"""Names in a list of tasks that only the Python plane provides (protocol/tasks.md#lists)."""
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_OF_OUTPUT: Final = frozenset({"status", "error"})


def check_planes(inspection: Inspected, readings: list[Reading]) -> None:
    _check_policies(inspection)
    _check_steps(inspection)
    document = inspection.document
    lists = {
        (*step.path, "tool")
        for step in step_parts(document)
        if isinstance(step.value.get("tool"), list) or mapping(step.value.get("tool")).get("kind") == "task_sequence"
    }
    for reading in readings:
        is_of_list = reading.path[:3] in lists
        if reading.path[0] != "workflow" or reading.error is not None:
            continue
        if is_of_list:
            _check_names(inspection, reading)
            if _is_rendered_at_once(document, reading):
                _check_words(inspection, reading)
        else:
            _check_rendered_by_plane(inspection, reading)


def _check_policies(inspection: Inspected) -> None:
    for tool in tool_parts(inspection.document):
        path: Path = (*tool.path, "spec", "policy")
        if not tool.is_task and tool.path[0] == "workflow" and inspection.playbook.has(path):
            inspection.add(
                "NW504", inspection.playbook.key_place(path), "the rules of a tool that is no list are ignored"
            )


def _check_steps(inspection: Inspected) -> None:
    """Report tool kinds, loops, conditions and arcs of steps that only one plane supports.

    Recorded: loop-number, step-when, set-counter.
    """
    for step in step_parts(inspection.document):
        kind = mapping(step.value.get("tool")).get("kind")
        if isinstance(kind, str) and kind not in KINDS and inspection.registry.knows(kind):
            inspection.add("NW503", (*step.path, "tool", "kind"), f"a playbook with kind '{kind}' is refused")
        items = mapping(step.value.get("loop")).get("in")
        if isinstance(items, str) and not has_template(items) and not items.lstrip().startswith("["):
            _add_text(inspection, (*step.path, "loop", "in"), items)
        elif isinstance(items, str) and not ONE_NAME.fullmatch(items):
            message = "the loop has one item, the text of `in`: only one name in braces gives a list"
            inspection.add("NW508", (*step.path, "loop", "in"), message)
        if "when" in step.value:
            inspection.add(
                "NW509", inspection.playbook.key_place((*step.path, "when")), "a step's own `when` is ignored"
            )
        for path, arc in step_arcs(step):
            if (name := arc_target(arc)) in ("start", step.name):
                message = f"the step '{name}' is not entered again: nothing follows this arc"
                inspection.add("NW510", (*path, "step"), message)


def _add_text(inspection: Inspected, path: Path, items: str) -> None:
    """Report a loop whose `in` is a plain string, not a list or a template.

    The Python plane loops once, over the string itself; the Rust plane fails the playbook.
    """
    name = items.strip()
    hint = f"; did you mean '{{{{ {name} }}}}'?" if _DOTTED.fullmatch(name) else ""
    is_warning = inspection.plane != "rust"
    inspection.add("NW312", path, f"the loop is over the text '{items}', which is no list{hint}", is_warning=is_warning)


def _check_names(inspection: Inspected, reading: Reading) -> None:
    for chain in reading.chains:
        name = chain.names[0]
        if name in _PYTHON_ONLY and name in reading.free and not chain.may_be_missing:
            word, message = Word(name, chain.line), f"'{name}' is null in a list of tasks"
            inspection.add_word(reading, word, "NW506", message)


def _is_rendered_at_once(document: Mapping[str, object], reading: Reading) -> bool:
    """Return True if the Rust plane, not the worker, renders this template of a list of tasks.

    The plane renders a template that uses only steps and workload keys, which have values before the first task runs.
    """
    workload = mapping(document.get("workload"))
    known = {*workload, *(step.name for step in step_parts(document))}
    names = names_of_plane(reading)
    if names is None or not LEFT_TO_WORKER.isdisjoint(map(str, reading.path[4:6])):
        return False
    return all((name[1:2] or name)[0] in workload if name[0] == "workload" else name[0] in known for name in names)


def _check_rendered_by_plane(inspection: Inspected, reading: Reading) -> None:
    if "keychain." in reading.text and "default" not in reading.text:
        return  # the worker fills it in
    _check_words(inspection, reading)
    if "policy" in reading.path:
        return
    for chain in reading.chains:
        if chain.names[0] == "output" and len(chain.names) == 2 and chain.names[1] in _OF_OUTPUT:
            word, message = Word("output", chain.line), f"'{'.'.join(chain.names)}' is null outside of a policy"
            inspection.add_word(reading, word, "NW505", message)


def _check_words(inspection: Inspected, reading: Reading) -> None:
    for word in reading.methods:
        inspection.add_word(reading, word, "NW501", f"the method '{word.name}' fails the playbook")
    for word in reading.filters:
        if word.name in UNKNOWN_FILTERS:
            inspection.add_word(reading, word, "NW502", f"the filter '{word.name}' fails the playbook")
    for word in reading.functions:
        if word.name == TOKEN:
            inspection.add_word(reading, word, "NW502", f"the function '{TOKEN}' fails the playbook")
