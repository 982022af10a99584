"""What a template reads: names, keys below them, filters, tests, methods, each with its line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from jinja2 import TemplateAssertionError, meta, nodes
from jinja2 import TemplateError as JinjaError

from noetl_worker.dev.positions import Path
from noetl_worker.lint.findings import Inspected
from noetl_worker.templates.limits import COUNTED
from noetl_worker.templates.sandbox import LENIENT

_GIVES_WAY: Final = frozenset({"default", "d"})
_ASKS: Final = frozenset({"defined", "undefined", "none"})


class Word(NamedTuple):
    name: str
    line: int


class Chain(NamedTuple):
    """`start.data.x`: ("start", "data", "x")."""

    names: tuple[str, ...]
    line: int
    may_be_missing: bool
    """It has a default, or it is only asked whether it is there."""


class ReadingError(NamedTuple):
    line: int
    reason: str


@dataclass(slots=True)
class Reading:
    """Of one text."""

    path: Path
    text: str
    tree: nodes.Template | None = None
    error: ReadingError | None = None
    chains: list[Chain] = field(default_factory=list)
    filters: list[Word] = field(default_factory=list)
    tests: list[Word] = field(default_factory=list)
    methods: list[Word] = field(default_factory=list)
    functions: list[Word] = field(default_factory=list)
    free: frozenset[str] = frozenset()
    """Names that the template does not make itself."""


def add_of_word(inspection: Inspected, reading: Reading, word: Word, code: str, message: str) -> None:
    """Report it where the word stands in the text."""
    inspection.add(code, inspection.playbook.within(reading.path, word.line, word.name), message)


def read_template(path: Path, text: str) -> Reading:
    reading = Reading(path, text)
    try:
        tree = LENIENT.parse(text)
    except JinjaError as error:
        reading.error = ReadingError(getattr(error, "lineno", None) or 1, (error.message or str(error)).rstrip("."))
        return reading
    except RecursionError:
        reading.error = ReadingError(1, "too deeply nested")
        return reading
    reading.tree = tree
    with suppress(TemplateAssertionError):  # a filter or a test that is not there, which is reported as such
        reading.free = frozenset(meta.find_undeclared_variables(tree))
    for child in tree.body:
        _visit(child, reading, may_be_missing=False)
    return reading


def _visit(node: nodes.Node, reading: Reading, *, may_be_missing: bool) -> None:
    if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
        _visit_chain(node, reading, may_be_missing=may_be_missing)
        return
    if isinstance(node, nodes.Filter) and node.name != COUNTED:
        reading.filters.append(Word(node.name, node.lineno))
    elif isinstance(node, nodes.Test):
        reading.tests.append(Word(node.name, node.lineno))
    elif isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            reading.methods.append(Word(node.node.attr, node.lineno))
            _visit(node.node.node, reading, may_be_missing=may_be_missing)
        elif isinstance(node.node, nodes.Name):
            reading.functions.append(Word(node.node.name, node.lineno))
        else:
            _visit(node.node, reading, may_be_missing=may_be_missing)
        for child in (*node.args, *node.kwargs):
            _visit(child, reading, may_be_missing=False)
        return
    for child, missing in _children(node, may_be_missing):
        _visit(child, reading, may_be_missing=missing)


def _children(node: nodes.Node, may_be_missing: bool) -> Iterator[tuple[nodes.Node, bool]]:
    """Each with whether what it reads may be missing."""
    if isinstance(node, nodes.Filter):
        asked: nodes.Node | None = node.node
        is_allowed = may_be_missing or node.name in _GIVES_WAY
    elif isinstance(node, nodes.Test):
        asked, is_allowed = node.node, node.name in _ASKS
    elif isinstance(node, nodes.Or):
        asked, is_allowed = node.left, True
    elif isinstance(node, nodes.CondExpr):
        asked, is_allowed = node.test, True
    else:
        asked, is_allowed = None, False
    for child in node.iter_child_nodes():
        yield child, is_allowed if child is asked else may_be_missing


def _visit_chain(node: nodes.Expr, reading: Reading, *, may_be_missing: bool) -> None:
    names: list[str] = []
    line = node.lineno
    inner: nodes.Expr = node
    while True:
        if isinstance(inner, nodes.Getattr):
            names.append(inner.attr)
        elif isinstance(inner, nodes.Getitem):
            if isinstance(inner.arg, nodes.Const) and isinstance(inner.arg.value, str):
                names.append(inner.arg.value)
            else:
                names.clear()  # what is below an item of a list is not known
                _visit(inner.arg, reading, may_be_missing=False)
        else:
            break
        inner = inner.node
    if isinstance(inner, nodes.Name):
        if inner.ctx == "load":
            reading.chains.append(Chain((inner.name, *reversed(names)), line, may_be_missing))
    else:
        _visit(inner, reading, may_be_missing=may_be_missing)
