"""Where the steps of a playbook stand in its file, and the code of each, by the marks of the YAML parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from noetl_worker import yaml_text

_CODE_LINE: Final = re.compile(r'(?:File "<python step>"|\(<python step>), line (\d+)')
"""As Python writes it in a traceback, and in the message of a SyntaxError."""


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """Lines of one file, from 1."""

    file: str = ""
    """As the author names it; "" where a playbook has none."""
    steps: Mapping[str, int] = field(default_factory=dict)
    code: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(step, task of a list or "") -> line of the first line of its code."""

    def of_step(self, step: str) -> str:
        """`file:line`, or "" where it is not known."""
        return f"{self.file}:{self.steps[step]}" if step in self.steps else ""

    def in_file(self, text: str, step: str, task: str = "") -> str:
        """A traceback, or a line of one, with the lines of the file for those of the step's code."""
        first = self.code.get((step, task))
        if first is None:
            return text

        def placed(found: re.Match[str]) -> str:
            line = int(found[1]) + first - 1
            return found[0].replace("<python step>", self.file).replace(f"line {found[1]}", f"line {line}")

        return _CODE_LINE.sub(placed, text)


def places_in(text: str, file: str) -> FilePlaces:
    """Of the text of a playbook that has been read without an error."""
    steps: dict[str, int] = {}
    code: dict[tuple[str, str], int] = {}
    for item in _items(_fields(yaml.compose(text, Loader=yaml_text.JsonLoader)).get("workflow")):
        name = _fields(item).get("step")
        if not isinstance(name, yaml.ScalarNode):
            continue
        steps[name.value] = name.start_mark.line + 1
        found = {task: _first_line(tool.get("code")) for task, tool in _tools(_fields(item).get("tool"))}
        if len(found) == 1:  # then a line is of this task, also where nobody says of which
            found[""] = next(iter(found.values()))
        code.update({(name.value, task): line for task, line in found.items() if line is not None})
    return FilePlaces(file, steps, code)


def _tools(node: yaml.Node | None) -> Iterator[tuple[str, dict[str, yaml.Node]]]:
    """(task or "", its fields) of a step's tool, in each of its forms."""
    if isinstance(node, yaml.MappingNode):
        yield "", _fields(node)
    for number, item in enumerate(_items(node)):
        fields = _fields(item)
        if "kind" in fields:
            name = fields.get("name")
            yield (name.value if isinstance(name, yaml.ScalarNode) else f"task_{number}"), fields
        else:
            yield from ((label, _fields(tool)) for label, tool in fields.items())


def _first_line(code: yaml.Node | None) -> int | None:
    """None where the lines of the code are not lines of the file."""
    if not isinstance(code, yaml.ScalarNode):
        return None
    if code.style == "|":
        return code.start_mark.line + 2
    return code.start_mark.line + 1 if code.start_mark.line == code.end_mark.line else None


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
