"""Which names, and which of their fields, a template reads: found in its syntax tree, without rendering it."""

from __future__ import annotations

from typing import TypeAlias

from jinja2 import TemplateError, nodes

from noetl_worker.templates.sandbox import LENIENT

__all__ = ["Path", "paths_in"]

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
