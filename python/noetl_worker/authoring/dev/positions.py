"""A parsed YAML file (a playbook or a file of tests): its values, and the line and column of each value.

PyYAML's C parser gives the lines: it parses a playbook of 1 kB in 0.1 ms. ruamel.yaml would take 4 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from noetl_worker.authoring.outline import Path
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import yaml_text

_BARE_BRACES: Final = re.compile(r"(?:^|[:\-\[,])\s*(\{\{)")


class Place(NamedTuple):
    """A position in a YAML file: line and column, both counted from 1."""

    line: int
    column: int


class Unreadable(NamedTuple):
    """The reason why a text cannot be parsed."""

    place: Place
    reason: str
    is_bare_template: bool = False
    """True if the reason is a template without quotes: `x: {{ y }}`."""


@dataclass(slots=True)
class PlaybookText:
    """A parsed YAML text. `value` is None if `unreadable` is set."""

    lines: list[str]
    value: JsonValue = None
    unreadable: Unreadable | None = None
    duplicates: list[tuple[str, Place, Place]] = field(default_factory=list)
    """Each repeated key, with line and column of its second occurrence, then of its first occurrence."""
    _keys: dict[Path, Place] = field(default_factory=dict)
    _nodes: dict[Path, Any] = field(default_factory=dict)

    def key_place(self, path: Path) -> Place:
        """Return the line and column of a value's key, or of the value itself if it is an item of a list."""
        return self._keys.get(path) or self.value_place(path)

    def value_place(self, path: Path) -> Place:
        """Return the line and column where the value at `path`, or else its nearest existing parent, begins."""
        while path and path not in self._nodes:
            path = path[:-1]
        node = self._nodes.get(path)
        return _place(node.start_mark) if node is not None else Place(1, 1)

    def has(self, path: Path) -> bool:
        return path in self._nodes

    def line_range(self, path: Path) -> range:
        """Return the range of the file's line numbers, counted from 1, that the value at a path covers."""
        node = self._nodes[path]
        end = node.end_mark.line + (node.end_mark.column > 0)
        return range(node.start_mark.line + 1, end + 1)

    def first_line(self, path: Path) -> int | None:
        """Return the number of the file's line where the content of a text value begins.

        Return None for any other value, and for a text whose line breaks differ from the file's, such as a folded text.
        """
        node = self._nodes.get(path)
        if not isinstance(node, yaml.ScalarNode):
            return None
        if node.style == "|":
            return node.start_mark.line + 2
        return node.start_mark.line + 1 if node.start_mark.line == node.end_mark.line else None

    def read_otherwise(self, path: Path) -> Iterator[tuple[str, JsonValue, Place]]:
        """Yield each unquoted word that YAML does not read as text, with its YAML value and place.

        For example, `no` becomes False.

        Args:
            path: path below which words are searched.
        """
        for node in yaml_text.misleading_values(self._nodes.get(path)):
            yield node.value, yaml_text.loads(node.value), _place(node.start_mark)

    def find_below(self, path: Path, word: str) -> Place | None:
        """Return line and column of the first key, or else value, that equals `word` below a path, or None."""
        inside = [one for one in self._nodes if one[: len(path)] == path]
        keys = [self.key_place(one) for one in inside if len(one) > len(path) and one[-1] == word]
        texts = [self.value_place(one) for one in inside if getattr(self._nodes[one], "value", None) == word]
        return min(keys or texts, default=None)

    def word_place(self, path: Path, line: int = 1, word: str = "") -> Place:
        """Return the line and column, in the file, of a word in a text of several lines.

        Args:
            line: the text's line, counted from 1, where the search begins.
            word: the word to find; for "" or an absent word, the beginning of `line` is returned.
        """
        node = self._nodes.get(path)
        if node is None:
            return self.value_place(path)
        first, last = node.start_mark.line, min(node.end_mark.line, len(self.lines) - 1)
        guess = min(first + line - 1 + (node.style in ("|", ">")), last)
        whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") if word else None
        for number in (*range(guess, last + 1), *range(first, guess)):
            start = node.start_mark.column if number == first else 0
            if whole is not None and (found := whole.search(self.lines[number], start)):
                return Place(number + 1, found.start() + 1)
        indented = len(self.lines[guess]) - len(self.lines[guess].lstrip())
        return Place(guess + 1, node.start_mark.column + 1 if guess == first else indented + 1)


def read_text(text: str) -> PlaybookText:
    """Parse a YAML text. The result's `unreadable` has the error; no error is raised."""
    read = PlaybookText(text.split("\n"))
    try:
        loader = yaml_text.JsonLoader(text)
        node = loader.get_single_node()
        if node is None:
            read.unreadable = Unreadable(Place(1, 1), "the file is empty")
        elif (bare := _bare_template(node)) is not None:
            reason = "YAML reads {{ }} without quotes as a mapping"
            read.unreadable = Unreadable(_place(bare.start_mark), reason, is_bare_template=True)
        else:
            for again, first in yaml_text.duplicate_keys(node):
                read.duplicates.append((again.value, _place(again.start_mark), _place(first.start_mark)))
            read.value = loader.construct_document(node)
            _walk(node, loader, read)
    except yaml_text.UNREADABLE as error:
        read.value = None
        read.unreadable = _unreadable(error, read.lines)
    return read


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _unreadable(error: Exception, lines: list[str]) -> Unreadable:
    mark = getattr(error, "problem_mark", None)
    if "end of stream" in str(getattr(error, "problem", "")):  # a quote is not closed: show where it begins
        mark = getattr(error, "context_mark", None) or mark
    if isinstance(error, UnicodeEncodeError):
        return Unreadable(Place(*yaml_text.error_place(error)), "not UTF-8")
    if isinstance(error, RecursionError):
        return Unreadable(Place(1, 1), "too deeply nested")
    if mark is None:
        return Unreadable(Place(1, 1), f"not YAML: {yaml_text.error_reason(error)}".splitlines()[0])
    for number in {mark.line, mark.line - 1}:
        line = lines[number] if 0 <= number < len(lines) else ""
        if (bare := _BARE_BRACES.search(line)) is not None:
            place = Place(number + 1, bare.start(1) + 1)
            return Unreadable(place, "YAML cannot read {{ }} without quotes", is_bare_template=True)
    return Unreadable(_place(mark), f"not YAML: {yaml_text.error_reason(error)}")


def _bare_template(node: Any) -> Any:
    """Return the first template without quotes, such as `x: {{ y }}`, or None.

    YAML reads such a template as a mapping whose key is a mapping.
    """
    for found in yaml_text.nodes_below(node):
        if isinstance(found, yaml.MappingNode):
            for key, _ in found.value:
                if isinstance(key, yaml.MappingNode):
                    return found
    return None


def _walk(root: Any, loader: Any, read: PlaybookText) -> None:
    """Note in `read` where each key and value of a YAML document stands: its line and column.

    The place of an alias (`*x`) is the place of its anchor (`&x`).

    Args:
        root: the document's outermost node.
    """
    waiting: list[tuple[Any, Path]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        read._nodes[path] = node
        if isinstance(node, yaml.MappingNode):
            values: dict[Path, Any] = {}
            for key, value in node.value:  # merged keys come first and are overridden
                below = (*path, loader.construct_object(key, deep=True))
                read._keys[below] = _place(key.start_mark)
                values[below] = value
            waiting += [(value, below) for below, value in values.items()]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, (*path, index)) for index, item in enumerate(node.value)]
