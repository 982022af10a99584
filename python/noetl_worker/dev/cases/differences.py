"""What is expected and what there is: where they differ, and at which line of the file it is expected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import ndiff
from typing import Final

import yaml

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.fields import nearest

_MOST_LINES: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    line: int
    name: str
    """Where in what is expected: `results.fetch.rows`."""
    details: tuple[str, ...]

    def lines(self, file: str) -> list[str]:
        return [f"{file}:{self.line}: {self.name}", *(f"  {text}" for text in self.details)]


def inner(node: yaml.Node | None, key: object) -> tuple[int, yaml.Node | None]:
    """The line of this key or place, from 1, and what stands there; the line around it where it is not written."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    return (node.start_mark.line + 1 if node is not None else 1), None


def differences(
    expected: JsonValue, actual: JsonValue, *, name: str, line: int, node: yaml.Node | None
) -> Iterator[Difference]:
    """An object may have more keys than are expected of it; all else is the same, or differs."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            at, below = inner(node, key)
            if key in actual:
                yield from differences(value, actual[key], name=f"{name}.{key}", line=at, node=below)
            else:
                there = ", ".join(map(str, actual)) or "nothing"
                guess = nearest(str(key), list(map(str, actual))) or ""
                yield Difference(at, f"{name}.{key}", (f"it is not there{guess}; there is {there}",))
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            at, below = inner(node, place)
            yield from differences(one, other, name=f"{name}[{place}]", line=at, node=below)
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield Difference(line, name, _diff(_written(expected), _written(actual)))


def _written(value: JsonValue) -> Sequence[str]:
    if isinstance(value, str) and "\n" in value:
        return value.splitlines()
    # Without commas: the last line of a list would differ from the same one with others after it.
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, separators=("", ": ")).splitlines()


def _diff(expected: Sequence[str], actual: Sequence[str]) -> tuple[str, ...]:
    """`-` is expected, `+` is there."""
    lines = [line.rstrip() for line in ndiff(expected[:_MOST_LINES], actual[:_MOST_LINES]) if not line.startswith("?")]
    return (*lines[:_MOST_LINES], *(["..."] if len(lines) > _MOST_LINES else []))
