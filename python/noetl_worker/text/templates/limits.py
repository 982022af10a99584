"""How much one rendering may do: a budget of nodes and bytes, charged before anything is done.

A template runs on the worker's event loop, beside every other command of the worker. The sandbox keeps it away from
the process; the budget keeps a typo (`'x' * 10 ** 9`, a loop in a loop in a loop) away from its memory and its time.
What filters and methods cost is in `costs.py`; here is the budget, and what operators, slices, loops and values
cost.
"""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from contextlib import suppress
from typing import Any, Final

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context

MAX_NODES: Final = 1_000_000
"""Elements looked at, rounds of loops, calls: each some 0.1 us of the event loop, together a tenth of a second."""
MAX_BYTES: Final = 64_000_000
"""Of all texts and lists that are made on the way to the result; the largest result that a plane takes is as large."""
MAX_TIME_S: Final = 2.0
MAX_BITS: Final = 100_000
PRINTED: Final = 6
"""The weight of what becomes text."""
CONTAINER_NODES: Final = 8
"""What Python code takes to look at one list or object, or at one element of a list of different things."""
_MAPPING_NODES: Final = 12
"""The same for an object, whose keys and values are looked at."""
_ENTRY_NODES: Final = 4
"""Of a key and its value, at least: to find out what they are is most of it."""
_WRITTEN: Final = 8
"""How often the bytes of a list or an object are charged when it becomes text."""
ROUND_NODES: Final = 8
"""What a round of a loop costs beside half a node for each part of what is in the loop."""
CALL_NODES: Final = 40
"""What a call of a macro, or of a loop by itself, costs."""
COMPILED_NODES: Final = 1_000
"""What it costs to compile a template, beside its tokens; one that is kept compiled costs nothing."""
_TOKEN_NODES: Final = 150
"""Some 25 us, most of it in Python's own compiler, which takes 4 kB of memory for it."""
COUNTED: Final = "_counted"
"""The filter that `count_loops` puts around what a loop goes over; no playbook can name it (see `Environment`)."""
_LONG_BITS: Final = 64
"""A number of more costs what its digits take: Python writes them in quadratic time."""
_POINTER: Final = 8
_ENTRY: Final = 100
"""Bytes of a key and its value in a dict, about."""
_ATOMS: Final = frozenset({int, float, bool, type(None)})
_FLAT: Final = _ATOMS | {str}
_NO_ITERATORS: Final = frozenset({str, int, float, bool, list, dict, tuple})
_ONE_TEXT: Final = (str, bytes, int, float, type(None))
_LISTS: Final = (list, tuple, set, frozenset, range, KeysView, ValuesView, ItemsView)
_OPERANDS: Final = (int, float, str, list, tuple, dict, type(None), Undefined)
"""Of operators; those that are not charged fail, whatever the operator."""
_KEYS: Final = (KeysView, set)
_SOUGHT_NODES: Final = 80
"""The weight of a key that is sought among others (see `keys.MAX_NUMBERS`)."""
_NESTED_NODES: Final = 32
"""Of a tuple in a tuple: Python goes down them for their hash, and ends the process where its stack does."""
_NUMBER: Final = re.compile(r"\d{1,18}")
_FIELD: Final = re.compile(r"[%{]")
_QUOTED: Final = re.compile(r"%[^a-zA-Z%]*[ra]|![ra]")
_WIDTH_FROM_ARGUMENT: Final = re.compile(r"%[-+ #0]*\*|%[^a-zA-Z%]*\.\*|\{[^{}]*:[^{}]*\{")


class Budget:
    """What one rendering has left."""

    __slots__ = ("_bytes", "_ends_at", "_nodes", "heaviest_round")

    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._bytes = MAX_BYTES
        self._ends_at = time.monotonic() + MAX_TIME_S
        self.heaviest_round = ROUND_NODES

    def charge(self, count: int = 0, size: int = 0) -> None:
        """Raises SecurityError: it is more than is left."""
        self._nodes -= count
        self._bytes -= size
        if self._nodes < 0:
            raise SecurityError(f"it takes more than {MAX_NODES:,} steps: do it in a python step, or on less data")
        if self._bytes < 0:
            raise SecurityError(f"it makes more than {MAX_BYTES:,} bytes on the way: do it in a python step")

    def charge_round(self, count: int) -> None:
        """One round of a loop, one call of a macro. Raises SecurityError."""
        self.charge(count)
        if time.monotonic() > self._ends_at:
            raise SecurityError(f"it runs for more than {MAX_TIME_S:g} s")

    def charge_value(self, value: Any, weight: int = 1, size: int = 1) -> None:
        """A value with all that is in it, as often as it is in it: `weight` nodes an element, its texts `size` times.

        A list of numbers or texts alone costs a quarter of that: it is gone through without Python code.
        """
        if isinstance(value, str):
            self.charge(1, size * text_size(value))
            return
        waiting = [value]
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind is not list and isinstance(item, (str, bytes)):
                self.charge(1, size * text_size(item))
            elif kind is dict or (kind is not list and isinstance(item, Mapping)):
                self.charge(_MAPPING_NODES + max(weight // 2, _ENTRY_NODES) * len(item), size * _ENTRY * len(item))
                if _FLAT.issuperset(map(type, item)) and _FLAT.issuperset(map(type, item.values())):
                    if size:
                        self.charge(size=size * _texts_size((*item, *item.values()), is_texts_only=False))
                        self.charge_numbers(item.values(), size)
                    continue
                self._inner(item.keys(), weight, size, waiting)
                self._inner(item.values(), weight, size, waiting)
            elif isinstance(item, _LISTS):
                self.charge(CONTAINER_NODES + weight * len(item) // 4, size * _POINTER * len(item))
                self._inner(item, weight, size, waiting)
            else:
                self.charge(1)
                if kind is int:
                    self.charge_number(item, size)

    def charge_number(self, number: int, size: int = 1) -> None:
        """A long one, when it becomes text."""
        if (bits := number.bit_length()) > _LONG_BITS:
            self.charge(bits * bits >> 16, size * (bits // 3))

    def charge_numbers(self, items: Collection[Any], size: int = 1, *, are_all: bool = False) -> None:
        """The long ones among them, when they become text; `are_all`: nothing else is among them."""
        self.charge(len(items) // (4 if are_all else 2))
        numbers = items if are_all else [item for item in items if type(item) is int]
        with suppress(OverflowError):
            array("q", numbers)  # the quickest way to see that all are short
            return
        bits = [number.bit_length() for number in numbers]
        if max(bits) > _LONG_BITS:
            self.charge(sum(one * one for one in bits) >> 16, size * (sum(bits) // 3))

    def charge_printed(self, value: Any, times: int = 1) -> None:
        """A value that becomes text, `times` times: what is in a list or an object is gone through and written."""
        if isinstance(value, _ONE_TEXT):
            self.charge_value(value, PRINTED * times, times)
        else:
            self.charge_value(value, PRINTED * times, _WRITTEN * times)

    def _inner(self, items: Collection[Any], weight: int, size: int, waiting: list[Any]) -> None:
        kinds = set(map(type, items))
        if size and int in kinds and kinds <= _FLAT:
            self.charge_numbers(items, size, are_all=kinds == {int})
        if kinds <= _ATOMS:
            return
        if kinds <= _FLAT:
            self.charge(len(items) // 3)
            if size:
                self.charge(size=size * _texts_size(items, len(kinds) == 1))
            return
        self.charge(weight * CONTAINER_NODES * len(items) // 2)
        if isinstance(items, tuple) and any(issubclass(kind, tuple) for kind in kinds):
            self.charge(_NESTED_NODES * len(items))
        waiting.extend(items)

    def charge_tuples(self, values: Iterable[Any]) -> None:
        """Those among them: whatever looks one up asks for its hash, which is that of all that is in it."""
        for value in values:
            if isinstance(value, tuple):
                self.charge_value(value, 1, 0)

    def listed(self, value: Any) -> Any:
        """An iterator as a list, charged one by one; anything else as it is."""
        if type(value) in _NO_ITERATORS or not isinstance(value, Iterator):
            return value
        return list(self.charging(value))

    def charging(self, items: Iterable[Any], weight: int = 1) -> Iterator[Any]:
        """`items`, charged one by one."""
        for item in items:
            self.charge(weight, _POINTER)
            yield item


def budget_of(context: Context) -> Budget:
    budget: Budget = context.budget  # type: ignore[attr-defined]  # Scope has one
    return budget


def text_size(text: str | bytes) -> int:
    """Bytes of a text in memory, at most; those of bytes when they are printed."""
    return len(text) if isinstance(text, str) and text.isascii() else 4 * len(text)


def _texts_size(items: Collection[Any], is_texts_only: bool) -> int:
    """Of all texts in it. Without Python code for each where all are ASCII: to charge must cost less than the work."""
    texts = items if is_texts_only else [item for item in items if isinstance(item, str)]
    return sum(map(len, texts)) if all(map(str.isascii, texts)) else sum(map(text_size, texts))


def charge_source(budget: Budget, source: str, tokens: Iterable[tuple[int, str, str]]) -> None:
    """What it takes to compile a template, whose tokens are looked at one by one."""
    budget.charge(COMPILED_NODES + 2 * source.count("\n"), text_size(source))
    for _, kind, _ in tokens:
        if kind != "whitespace":
            budget.charge(_TOKEN_NODES)


def count_loops(tree: nodes.Template) -> None:
    """Make every `for` of a parsed template count its rounds."""
    for loop in tree.find_all(nodes.For):
        weight = nodes.Const(ROUND_NODES + sum(1 for _ in loop.find_all(nodes.Node)) // 2)
        loop.iter = nodes.Filter(loop.iter, COUNTED, [weight], [], None, None, lineno=loop.lineno)


@pass_context
def counted(context: Context, items: Iterable[Any], weight: int) -> Iterator[Any]:
    """`items`, a round each."""
    budget = budget_of(context)
    budget.heaviest_round = max(budget.heaviest_round, weight)
    for item in items:
        budget.charge_round(weight)
        yield item


def charge_slice(budget: Budget, value: Any, part: slice) -> None:
    """What `value[start:stop:step]` copies."""
    if isinstance(value, Sized):
        count = len(range(*part.indices(len(value))))
        wide = isinstance(value, str) and not value.isascii()
        budget.charge(1, count * (4 if wide else 1 if isinstance(value, str) else _POINTER))


def charge_operation(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """What `left operator right` takes; asked before it is done. What has no cost here is no operand."""
    is_format = operator == "%" and isinstance(left, str)
    if operator == "-" and isinstance(left, _KEYS) and isinstance(right, (*_KEYS, list, tuple, dict)):
        budget.charge_value((left, right), _SOUGHT_NODES)
        return
    for operand in (left,) if is_format else (left, right):
        if not isinstance(operand, _OPERANDS):
            raise SecurityError(
                f"operator {operator!r} of {type(operand).__name__!r} is not open to templates: do it in a python step"
            )
    if isinstance(left, int) and isinstance(right, int):
        charge_numbers(budget, operator, left, right)
    elif is_format:
        charge_format(budget, left, right if isinstance(right, tuple) else (right,))
    elif operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, (str, list, tuple)) and isinstance(times, int):
                size = text_size(items) if isinstance(items, str) else _POINTER * len(items)
                budget.charge(1, size * max(times, 0))
    elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        budget.charge(1, joined_size((left, right)) if isinstance(left, str) else _POINTER * (len(left) + len(right)))
    elif operator == "**" and isinstance(right, (int, float)) and abs(right) > MAX_BITS:
        raise SecurityError(f"exponent {right} is over {MAX_BITS:,}")
    else:
        budget.charge(1)


def joined_size(texts: Iterable[Any]) -> int:
    """Bytes of some texts as one: a single wide character makes all of them wide."""
    found = [text for text in texts if isinstance(text, str)]
    length = sum(map(len, found))
    return length if all(map(str.isascii, found)) else 4 * length


def charge_numbers(budget: Budget, operator: str, left: int, right: int) -> None:
    """The same of whole numbers."""
    bits = (left.bit_length(), right.bit_length())
    made = sum(bits) if operator == "*" else max(bits)
    if operator == "**" and right > 0:
        made = max(bits[0], 1) * right
    if made > MAX_BITS:
        raise SecurityError(f"it makes a number of over {MAX_BITS:,} bits")
    budget.charge(1 + (made * made >> 18))


def charge_format(budget: Budget, template: str, arguments: Iterable[Any]) -> None:
    """A format (`%` or `str.format`): its numbers may all be widths, each field may print all of its arguments."""
    if _WIDTH_FROM_ARGUMENT.search(template):
        raise SecurityError("a width in its format is an argument: write it as a number")
    budget.charge(len(template) // 4, 4 * text_size(template))
    widths = sum(int(number.group()) for number in _NUMBER.finditer(template))
    fields = sum(1 for _ in _FIELD.finditer(template))
    budget.charge(fields, 4 * widths)
    quotes = _QUOTED.search(template) is not None
    for argument in arguments if fields else ():
        budget.charge_printed([argument] if quotes else argument, fields)
