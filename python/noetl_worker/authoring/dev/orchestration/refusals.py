"""Playbooks that the Rust plane refuses to execute, as seen on the real plane (tests/compat/playbooks/forms.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from noetl_worker.authoring.dev.orchestration.playbook import Playbook


class Refusal(NamedTuple):
    """Status and text of the plane's answer to `execute`."""

    status: int
    text: str
    step: str = ""
    """The step that the refusal is about, followed by the part of it."""
    field: str = ""
    word: str = ""


def refused_by_rust(playbook: Playbook) -> Iterator[Refusal]:
    """Yield the refusals of a playbook. The first one is the plane's answer."""
    steps = playbook.steps
    for position, step in enumerate(steps.values()):
        where = f"workflow[{position}]"
        if step.tool is None:
            yield Refusal(400, f"{where}: missing field `tool`", step.name, "tool")
        if step.loop is not None and not isinstance(step.loop.collection, str):
            yield Refusal(400, f"{where}.loop.in: invalid type, expected a string", step.name, "loop", "in")
    if "start" not in steps:
        yield Refusal(422, "Workflow must have a step named 'start'")
    for step in steps.values():
        for arc in step.arcs:
            if arc.step not in steps:
                text = f"Step '{step.name}' references unknown step '{arc.step}' in next.arcs"
                yield Refusal(422, text, step.name, "next", arc.step)
