"""The names in a template, with their lines: variables and the keys below them, filters, tests, methods, functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple

from jinja2 import TemplateAssertionError, meta, nodes
from jinja2 import TemplateError as JinjaError

from noetl_worker.authoring.outline import Path
from noetl_worker.text.templates.limits import COUNTED
from noetl_worker.text.templates.sandbox import LENIENT

_GIVES_WAY: Final = frozenset({"default", "d"})
_MANY_NODES: Final = 100
"""Number of syntax nodes above which a template is also compiled. Compiling detects nesting that is too deep."""
_ASKS: Final = frozenset({"defined", "undefined", "none"})


class Word(NamedTuple):
    name: str
    line: int


class Chain(NamedTuple):
    """A dotted name in a template: `start.data.x` is ("start", "data", "x")."""

    names: tuple[str, ...]
    line: int
    may_be_missing: bool
    """True if the template gives a default for the name, or only tests whether the name has a value."""


class ReadingError(NamedTuple):
    line: int
    reason: str


@dataclass(slots=True)
class Reading:
    """The variables, filters, tests, methods and functions that one template uses, for checks that do not render it."""

    path: Path
    text: str
    error: ReadingError | None = None
    chains: list[Chain] = field(default_factory=list)
    filters: list[Word] = field(default_factory=list)
    tests: list[Word] = field(default_factory=list)
    methods: list[Word] = field(default_factory=list)
    functions: list[Word] = field(default_factory=list)
    free: frozenset[str] = frozenset()
    """First parts of dotted names that the template reads and does not set itself: its variables."""
    has_words: bool = False
    """True if a template without `{% %}` has text outside its braces. A condition with such text is always true."""


def read_template(path: Path, text: str) -> Reading:
    """Return the names in a template. If the template does not parse, the result has `error` instead of names.

    Args:
        path: where the template stands in its playbook.
    """
    return replace(_read_cached(text), path=path)


@lru_cache(4096)  # the same condition is often on many arcs
def _read_cached(text: str) -> Reading:
    reading = Reading((), text)
    try:
        _read_into(reading)
    except JinjaError as error:
        reading.error = ReadingError(getattr(error, "lineno", None) or 1, (error.message or str(error)).rstrip("."))
    except RecursionError:
        return Reading((), text, error=ReadingError(1, "too deeply nested"))
    return reading


def _read_into(reading: Reading) -> None:
    tree = LENIENT.parse(reading.text)
    found = list(tree.find_all(nodes.Node))
    reading.free = _free_names(tree, found)
    for node in found:
        if isinstance(node, nodes.Filter) and node.name != COUNTED:
            reading.filters.append(Word(node.name, node.lineno))
        elif isinstance(node, nodes.Test):
            reading.tests.append(Word(node.name, node.lineno))
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            reading.methods.append(Word(node.node.attr, node.lineno))
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            reading.functions.append(Word(node.node.name, node.lineno))
    reading.chains = list(_chains(tree, may_be_missing=False))
    parts = tree.body[0].iter_child_nodes() if len(tree.body) == 1 else ()
    reading.has_words = any(isinstance(part, nodes.TemplateData) and part.data.strip() for part in parts)


def _free_names(tree: nodes.Template, found: list[nodes.Node]) -> frozenset[str]:
    """Return the names that a template reads and does not set itself."""
    has_statements = any(isinstance(node, nodes.Stmt) and not isinstance(node, nodes.Output) for node in found)
    if has_statements or len(found) > _MANY_NODES:
        with suppress(TemplateAssertionError):  # an unknown filter or test, which the caller reports by name
            return frozenset(meta.find_undeclared_variables(tree))  # compiles the template, so it is not always done
        return frozenset()
    return frozenset(node.name for node in found if isinstance(node, nodes.Name))


def _chains(node: nodes.Node, *, may_be_missing: bool) -> Iterator[Chain]:
    if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
        yield from _chain(node, may_be_missing=may_be_missing)
    elif isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            yield from _chains(node.node.node, may_be_missing=may_be_missing)
        elif not isinstance(node.node, nodes.Name):
            yield from _chains(node.node, may_be_missing=may_be_missing)
        for given in (*node.args, *node.kwargs):
            yield from _chains(given, may_be_missing=False)
    else:
        asked, is_allowed = _asked(node, may_be_missing=may_be_missing)
        for child in node.iter_child_nodes():
            yield from _chains(child, may_be_missing=is_allowed if child is asked else may_be_missing)


def _asked(node: nodes.Node, *, may_be_missing: bool) -> tuple[nodes.Node | None, bool]:
    """Return the operand of a filter, test, `or` or inline `if`, and whether variables in the operand may be undefined.

    For example, `x` may be undefined in `x | default(1)`, `x is defined`, `x or 1` and `1 if x`. For any other node,
    return (None, False).
    """
    if isinstance(node, nodes.Filter):
        return node.node, may_be_missing or node.name in _GIVES_WAY
    if isinstance(node, nodes.Test):
        return node.node, node.name in _ASKS
    if isinstance(node, nodes.Or):
        return node.left, True
    if isinstance(node, nodes.CondExpr):
        return node.test, True
    return None, False


def _chain(node: nodes.Expr, *, may_be_missing: bool) -> Iterator[Chain]:
    names: list[str] = []
    inner = node
    while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
        if isinstance(inner, nodes.Getattr):
            names.append(inner.attr)
        elif isinstance(inner.arg, nodes.Const) and isinstance(inner.arg.value, str):
            names.append(inner.arg.value)
        else:
            names.clear()  # the keys below a computed index are not known
            yield from _chains(inner.arg, may_be_missing=False)
        inner = inner.node
    if not isinstance(inner, nodes.Name):
        yield from _chains(inner, may_be_missing=may_be_missing)
    elif inner.ctx == "load":
        yield Chain((inner.name, *reversed(names)), node.lineno, may_be_missing)
