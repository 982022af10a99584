"""The differences between the expected and the actual values of a test, each with its line in the test's file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import ndiff
from typing import Final

from noetl_worker.authoring.dev.positions import PlaybookText
from noetl_worker.authoring.outline import Path
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.fields import nearest

_MOST_LINES: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of an expectation that a test did not meet."""

    line: int
    """Line of the expectation in the test's file."""
    name: str
    """Path in the test's `expect`, for example `results.fetch.rows`."""
    details: tuple[str, ...]

    def lines(self, file: str) -> list[str]:
        return [f"{file}:{self.line}: {self.name}", *(f"  {text}" for text in self.details)]


def differences(
    expected: JsonValue, actual: JsonValue, *, name: str, text: PlaybookText, path: Path
) -> Iterator[Difference]:
    """Yield the differences between two values. An actual object may have additional keys; all else must be equal.

    Args:
        name: path of the expected value, to show, for example `results.fetch`.
        text: the parsed file of the test.
        path: path of the expected value in `text`.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            inside = (*path, key)
            if key in actual:
                yield from differences(value, actual[key], name=f"{name}.{key}", text=text, path=inside)
            else:
                there = ", ".join(map(str, actual)) or "nothing"
                guess = nearest(str(key), list(map(str, actual)))
                why = f"the key is missing{guess}; the result has {there}"
                yield Difference(text.key_place(inside).line, f"{name}.{key}", (why,))
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(one, other, name=f"{name}[{place}]", text=text, path=(*path, place))
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield Difference(text.key_place(path).line, name, _diff(_written(expected), _written(actual)))


def _written(value: JsonValue) -> Sequence[str]:
    if isinstance(value, str) and "\n" in value:
        return value.splitlines()
    # Without commas, an item has the same line at the end of a list as before other items.
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, separators=("", ": ")).splitlines()


def _diff(expected: Sequence[str], actual: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of a diff, in which `-` marks expected lines and `+` actual lines."""
    lines = [line.rstrip() for line in ndiff(expected[:_MOST_LINES], actual[:_MOST_LINES]) if not line.startswith("?")]
    return (*lines[:_MOST_LINES], *(["..."] if len(lines) > _MOST_LINES else []))
