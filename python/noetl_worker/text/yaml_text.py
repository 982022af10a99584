"""Parser of YAML documents into JSON values. PyYAML's wheels contain libyaml, which is ten times as fast as the loader
in Python. Without libyaml, the loader in Python is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, NoReturn

import yaml
from yaml.constructor import ConstructorError

from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue

_TAG: Final = "tag:yaml.org,2002:"
_NO_JSON: Final = ("binary", "set", "timestamp")
_MOST_BY_ALIASES: Final = 200_000
"""Largest number of values that YAML aliases (`*name`) may add to a document. Nested aliases turn a few lines into very
many values."""
_MOST_CHARACTERS: Final = 4 << 20
"""Largest number of characters of a document. A plain word takes 64 bytes a character while its type is resolved."""
_MOST_NODES: Final = 100_000
_MOST_NESTED: Final = 100
"""Largest depth of nested lists and objects in a large document. For each value, libyaml visits all levels above it;
small documents are not checked."""
_LONGEST_NUMBER: Final = 1_000
"""Largest number of characters of a number. The time to read a number of base 60 (`1:1:1`) grows with the square of its
length."""
_LONGEST_WORD: Final = 40
"""Largest number of characters of a value that `misleading_values` checks. Such values (`no`, `12:30`) are shorter."""
_WORDS: Final = ("yes", "no", "on", "off")
_IMPLICIT: Final = yaml.SafeLoader.yaml_implicit_resolvers
UNREADABLE: Final = (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError)
"""Exceptions that the reading of YAML may raise. ValueError: a number has too many digits, or (UnicodeEncodeError) a
text is not UTF-8."""


class JsonLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader that makes JSON values only. A date without quotes is a text, since JSON has no dates."""

    yaml_implicit_resolvers: ClassVar[Mapping[str, Any]] = {
        first: [one for one in found if one[0] != f"{_TAG}timestamp"] for first, found in _IMPLICIT.items()
    }

    def construct_document(self, node: yaml.Node) -> JsonValue:
        _check_aliases(node)
        return super().construct_document(node)


def _refuse(loader: Any, node: yaml.Node) -> NoReturn:
    tag = f"!!{node.tag.removeprefix(_TAG)}"
    raise ConstructorError(None, None, f"{tag} is no value of JSON: write text or a list", node.start_mark)


for _name in _NO_JSON:
    JsonLoader.add_constructor(f"{_TAG}{_name}", _refuse)


def _read_number(loader: Any, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > _LONGEST_NUMBER:
        raise ConstructorError(
            None,
            None,
            f"a number of more than {_LONGEST_NUMBER:,} signs: write it as a text, in quotes",
            node.start_mark,
        )
    read = loader.construct_yaml_int if node.tag.endswith("int") else loader.construct_yaml_float
    number: int | float = read(node)
    return number


for _name in ("int", "float"):
    JsonLoader.add_constructor(f"{_TAG}{_name}", _read_number)


def _check_nodes(text: str) -> None:
    """Check the size of a document before libyaml makes its nodes. A node takes 700 bytes, and libyaml makes all nodes
    at once.

    Raises:
        ConstructorError: the document is too large.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConstructorError(None, None, f"a document of more than {_MOST_CHARACTERS:,} characters: divide it")
    if sum(map(text.count, "[{,:-?")) <= _MOST_NODES // 2:  # each sign makes two nodes at most
        return
    nodes = depth = 0
    event: Any
    for event in yaml.parse(text, JsonLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > _MOST_NODES or depth > _MOST_NESTED:
            limit = f"more than {_MOST_NODES:,} values, or nested more than {_MOST_NESTED} times"
            raise ConstructorError(None, None, f"a document of {limit}: divide it", event.start_mark)


def _check_aliases(root: yaml.Node) -> None:
    """Check that no alias contains itself and that aliases do not make too many values.

    Each node is visited once. A node's size is the number of its values once each alias is replaced by a copy.

    Raises:
        ConstructorError: a check fails.
    """
    sizes: dict[int, int] = {}  # 0: the node's descendants are still being visited
    waiting = [(root, False)]
    while waiting:
        node, is_left = waiting.pop()
        below = _children(node)
        if is_left:
            sizes[id(node)] = 1 + sum(sizes[id(one)] for one in below)
        elif id(node) not in sizes:
            sizes[id(node)] = 0
            waiting += [(node, True), *((one, False) for one in below)]
        elif not sizes[id(node)]:
            raise ConstructorError(None, None, "an alias contains itself: write its value out", node.start_mark)
    if sizes[id(root)] - len(sizes) > _MOST_BY_ALIASES:
        raise ConstructorError(
            None, None, "aliases make too many values: write fewer aliases of aliases", root.start_mark
        )


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def nodes_below(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield a node and all nodes below it once, in the order of the text."""
    seen: set[int] = set()
    waiting = [] if node is None else [node]
    while waiting:
        found = waiting.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += reversed(_children(found))


def duplicate_keys(node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Yield each repeated key of an object, with the first key of the same name. YAML uses only the last value under a
    name."""
    for found in nodes_below(node):
        if isinstance(found, yaml.MappingNode):
            seen: dict[tuple[str, str], yaml.ScalarNode] = {}
            for key, _ in found.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    first = seen.setdefault((key.tag, key.value), key)  # 1 and "1" are different keys
                    if first is not key:
                        yield key, first


def misleading_values(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Yield values that YAML 1.1 reads differently from how they look: `12:30` is 750, `01234` 668, `no` false."""
    for found in nodes_below(node):
        if isinstance(found, yaml.MappingNode):
            yield from (value for _, value in found.value if _is_misleading(value))
        elif isinstance(found, yaml.SequenceNode):
            yield from filter(_is_misleading, found.value)


def _is_misleading(node: yaml.Node) -> bool:
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, yaml.ScalarNode) or node.style or len(node.value) > _LONGEST_WORD:
        return False
    if kind == "bool":
        return node.value.lower() in _WORDS
    digits = node.value.lstrip("+-")
    is_octal = kind == "int" and digits[:1] == "0" and digits[1:2].isdigit()
    return is_octal or (kind in ("int", "float") and ":" in digits)


def error_reason(error: Exception) -> str:
    """Return the reason for an exception that the reading of YAML raised, as words for an error text."""
    if isinstance(error, LookupError):  # raised for `!!bool x`
        return "a tag (!!...) that does not fit its value"
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)


def error_place(error: UnicodeEncodeError) -> tuple[int, int]:
    """Return the line and the column, counted from 1, of the character at which encoding a text as UTF-8 failed."""
    before = error.object[: error.start]
    return before.count("\n") + 1, error.start - before.rfind("\n")


def error_position(error: Exception) -> str:
    """Return where the reading of YAML failed, as words for an error text: ` at line 3, column 7`. Without a known
    position, return ""."""
    mark = getattr(error, "problem_mark", None)
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def loads(text: str, *, otherwise: str = "not YAML") -> JsonValue:
    """Parse one YAML document into a JSON value.

    Args:
        text: the document.
        otherwise: first words of the error's message, if the document cannot be parsed.

    Raises:
        DocumentError: code `yaml`, with the parser's reason and position in one line.
    """
    try:
        _check_nodes(text)
        return yaml.load(text, JsonLoader)
    except UnicodeEncodeError as error:  # bytes of another encoding, or a lone surrogate
        line, column = error_place(error)
        raise DocumentError("yaml", f"{otherwise} at line {line}, column {column}: not UTF-8") from error
    except UNREADABLE as error:
        raise DocumentError("yaml", f"{otherwise}{error_position(error)}: {error_reason(error)}") from error
