"""The line numbers of the parts of a playbook, for messages to the playbook's author."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from noetl_worker.authoring.dev.orchestration.location import Location
from noetl_worker.authoring.dev.positions import PlaybookText, read_text
from noetl_worker.authoring.outline import Path, mapping, step_parts, step_tools

_CODE_LINE: Final = re.compile(r'(?:File "<python step>"|\(<python step>), line (\d+)')
"""A reference to a line of a step's code, in the form that Python uses in tracebacks and SyntaxErrors."""


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """Finds the line of a part of one playbook in the playbook's file."""

    file: str = ""
    """Path of the file, as the author wrote it; "" for a playbook without a file."""
    read: PlaybookText = field(default_factory=lambda: PlaybookText([]))
    steps: Mapping[str, Path] = field(default_factory=dict)
    """Path of each step in the playbook, by the step's name."""
    code: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of the first line of each tool's code, by step and task ("" for a single tool)."""

    def step_place(self, step: str) -> str:
        """Return `file:line` of a step, or "" for an unknown step."""
        return self.location_text(Location(step, ("step",))) if step in self.steps else ""

    def location_text(self, location: Location) -> str:
        """Return `file:line` of a part of the playbook; "" for a playbook without a file.

        If the part does not exist, return the line of the nearest part around the missing part.
        """
        path = (*self.steps.get(location.step, ()), *location.path)
        found = self.read.find_below(path, location.template) if location.template else None
        place = found or self.read.key_place(path)
        return f"{self.file}:{place.line}" if self.file else ""

    def in_file(self, text: str, step: str, task: str = "") -> str:
        """Return `text` with the line numbers of a step's code replaced by line numbers of the playbook's file.

        Args:
            text: a traceback, or one line of a traceback.
        """
        first = self.code.get((step, task))
        if first is None:
            return text

        def placed(found: re.Match[str]) -> str:
            line = int(found[1]) + first - 1
            return found[0].replace("<python step>", self.file).replace(f"line {found[1]}", f"line {line}")

        return _CODE_LINE.sub(placed, text)


def places_in(text: str, file: str) -> FilePlaces:
    """Return an object that finds the line number of each part of a playbook.

    Args:
        text: the playbook, which has to be valid YAML.
        file: path to show in messages.
    """
    steps: dict[str, Path] = {}
    code: dict[tuple[str, str], int] = {}
    read = read_text(text)
    for step in step_parts(mapping(read.value)):
        steps[step.name] = step.path
        found = {tool.label: read.first_line((*tool.path, "code")) for tool in step_tools(step)}
        if len(found) == 1:  # a traceback that names no task is then from this task
            found[""] = next(iter(found.values()))
        code.update({(step.name, task): line for task, line in found.items() if line is not None})
    return FilePlaces(file, read, steps, code)
