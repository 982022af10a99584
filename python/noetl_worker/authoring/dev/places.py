"""The lines of a playbook's steps and of their code in its file, from the marks of the YAML parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from noetl_worker.authoring.dev.orchestration.spot import Spot
from noetl_worker.authoring.dev.positions import PlaybookText, read_text
from noetl_worker.authoring.outline import Path, mapping, step_parts, step_tools

_CODE_LINE: Final = re.compile(r'(?:File "<python step>"|\(<python step>), line (\d+)')
"""A line of the step's code, as Python names it in a traceback and in the message of a SyntaxError."""


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """Lines of one file, counted from 1."""

    file: str = ""
    """The file as the author names it; "" for a playbook without one."""
    read: PlaybookText = field(default_factory=lambda: PlaybookText([]))
    steps: Mapping[str, Path] = field(default_factory=dict)
    code: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """First line of each piece of code, by step and task of a list ("" without a list)."""

    def step_place(self, step: str) -> str:
        """Return `file:line` of a step, or "" if the line is not known."""
        return self.spot_place(Spot(step, ("step",))) if step in self.steps else ""

    def spot_place(self, spot: Spot) -> str:
        """Return `file:line` of a part, or of the nearest one around it; "" without a file."""
        path = (*self.steps.get(spot.step, ()), *spot.path)
        place = (self.read.find_below(path, spot.template) if spot.template else None) or self.read.key_place(path)
        return f"{self.file}:{place.line}" if self.file else ""

    def in_file(self, text: str, step: str, task: str = "") -> str:
        """Return a traceback, or a line of one, with the code's line numbers replaced by the file's."""
        first = self.code.get((step, task))
        if first is None:
            return text

        def placed(found: re.Match[str]) -> str:
            line = int(found[1]) + first - 1
            return found[0].replace("<python step>", self.file).replace(f"line {found[1]}", f"line {line}")

        return _CODE_LINE.sub(placed, text)


def places_in(text: str, file: str) -> FilePlaces:
    """Find the places in the text of a playbook that was read without an error."""
    steps: dict[str, Path] = {}
    code: dict[tuple[str, str], int] = {}
    read = read_text(text)
    for step in step_parts(mapping(read.value)):
        steps[step.name] = step.path
        found = {tool.label: read.first_line((*tool.path, "code")) for tool in step_tools(step)}
        if len(found) == 1:  # a line without a task then belongs to this task
            found[""] = next(iter(found.values()))
        code.update({(step.name, task): line for task, line in found.items() if line is not None})
    return FilePlaces(file, read, steps, code)
