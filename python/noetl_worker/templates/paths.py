"""Which names, and which of their fields, a template reads: found in its syntax tree, without rendering it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from jinja2 import TemplateError, nodes

from noetl_worker.templates.sandbox import LENIENT

__all__ = ["Path", "names_in", "paths_in"]

_WORD: Final = re.compile(r"\w+")

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
        keys: list[str | int] = []
        while isinstance(node, nodes.Getattr | nodes.Getitem):
            if isinstance(node, nodes.Getattr):
                keys.append(node.attr)
            elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str | int):
                keys.append(node.arg.value)
            else:
                keys.clear()
                waiting.append(node.arg)
            node = node.node
        if isinstance(node, nodes.Name):
            found.add((node.name, *reversed(keys)))
        waiting += node.iter_child_nodes()
    return found


def names_in(code: str, names: Iterable[str]) -> set[str]:
    """Which of the names are in the code. No pattern of each, which would go through it, and be kept, once a name."""
    words = set(_WORD.findall(code))
    return {name for name in names if name in words or (not _WORD.fullmatch(name) and name in code)}
