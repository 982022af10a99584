"""The names and fields that a template reads, found in its syntax tree without rendering it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from jinja2 import TemplateError, nodes

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.templates.sandbox import LENIENT

_WORD: Final = re.compile(r"\w+")
_FIRST_NAME: Final = re.compile(r"[.\[]")
"""Pattern of the character that ends the first part of a path (`step` of `step.data`): `.` or `[`."""
_CODE: Final = ("code", "script")
_CODE_B64: Final = ("code_b64", "code_base64")

Path: TypeAlias = tuple[str | int, ...]
"""Path of a value in templates: a name, then literal keys and indexes. `a.b[0]` is `("a", "b", 0)`. A path ends before
a computed key or a slice."""


def paths_in(text: str) -> set[Path]:
    """Return the paths of all values that a template reads. For a template with a syntax error, return an empty set;
    rendering reports the error."""
    try:
        tree = LENIENT.parse(text)
    except TemplateError:
        return set()
    found: set[Path] = set()
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        root, keys, computed = split_lookup(node)
        if isinstance(root, nodes.Name):
            found.add((root.name, *keys))
        waiting += [*computed, *([] if root is None else root.iter_child_nodes())]
    return found


def split_lookup(node: nodes.Node | None) -> tuple[nodes.Node | None, list[str | int], list[nodes.Node]]:
    """Split a look-up into root, literal keys and computed keys: `a.b[0][c].d` gives `a`, `[b, 0]` and `[c]`.

    The literal keys end before the first computed key.
    """
    keys: list[str | int] = []
    computed: list[nodes.Node] = []
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        if isinstance(node, nodes.Getattr):
            keys.append(node.attr)
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str | int):
            keys.append(node.arg.value)
        else:
            keys.clear()
            computed.append(node.arg)
        node = node.node
    return node, keys[::-1], computed


def names_in(code: str, names: Iterable[str]) -> set[str]:
    """Return those of `names` that occur in the code of a tool.

    The code is split into words once. A regular expression for each name would search the whole code again, and `re`
    would cache each expression.
    """
    words = set(_WORD.findall(code))
    return {name for name in names if name in words or (not _WORD.fullmatch(name) and name in code)}


def find_codes(fields: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield the code in one tool's fields, such as `code` and `script`, but not in nested tools. Base64 in `code_b64`
    is decoded; a text that is not base64, such as a template, is yielded unchanged."""
    for name in _CODE:
        if isinstance(fields.get(name), str):
            yield fields[name]
    for name in _CODE_B64:
        if isinstance(given := fields.get(name), str):
            try:
                yield b64decode(given, validate=True).decode()
            except ValueError:
                yield given


def places_in_code(config: JsonValue, places: Sequence[str]) -> list[str]:
    """Return those of `places` (paths of redacted values, such as `step.data`) whose first part (here `step`) occurs in
    the code of a tool or of its tasks. Such code may read a redacted value, so the worker logs a warning."""
    code = " ".join(_find_all_codes(config))
    names = {place: _FIRST_NAME.split(place, 1)[0] for place in places} if code else {}
    in_code = names_in(code, names.values())
    return [place for place, name in names.items() if name in in_code]


def _find_all_codes(config: JsonValue) -> Iterator[str]:
    waiting: list[JsonValue] = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [inner for inner in item.values() if isinstance(inner, (dict, list))]
            yield from find_codes(item)
        elif isinstance(item, list):
            waiting += item
