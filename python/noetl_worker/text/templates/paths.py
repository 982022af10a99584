"""Which names, and which of their fields, a template reads: found in its syntax tree, without rendering it."""

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
"""What ends it in a place."""
_CODE: Final = ("code", "script")
_CODE_B64: Final = ("code_b64", "code_base64")

Path: TypeAlias = tuple[str | int, ...]
"""A name, then keys and indexes that are written out: `a.b[0]`. It ends where one is computed, or at a slice."""


def paths_in(text: str) -> set[Path]:
    """The paths of a template, each as far as it is written out; none where it does not parse (rendering says why)."""
    try:
        tree = LENIENT.parse(text)
    except TemplateError:
        return set()
    found: set[Path] = set()
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        root, keys, computed = looked_up(node)
        if isinstance(root, nodes.Name):
            found.add((root.name, *keys))
        waiting += [*computed, *([] if root is None else root.iter_child_nodes())]
    return found


def looked_up(node: nodes.Node | None) -> tuple[nodes.Node | None, list[str | int], list[nodes.Node]]:
    """Of `a.b[0][c].d` the root (a), the keys up to one that is computed (b, 0), and what such ones are (c)."""
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
    """Which of the names are in the code. No pattern of each, which would go through it, and be kept, once a name."""
    words = set(_WORD.findall(code))
    return {name for name in names if name in words or (not _WORD.fullmatch(name) and name in code)}


def codes_of(fields: Mapping[str, JsonValue]) -> Iterator[str]:
    """The code that a tool's own fields have; of base64 what it says, or itself where it is none: a template."""
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
    """Those of the places that the code in a tool's config, or in those of its tasks, may read."""
    code = " ".join(_codes_in(config))
    names = {place: _FIRST_NAME.split(place, 1)[0] for place in places} if code else {}
    in_code = names_in(code, names.values())
    return [place for place, name in names.items() if name in in_code]


def _codes_in(config: JsonValue) -> Iterator[str]:
    waiting: list[JsonValue] = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [inner for inner in item.values() if isinstance(inner, (dict, list))]
            yield from codes_of(item)
        elif isinstance(item, list):
            waiting += item
