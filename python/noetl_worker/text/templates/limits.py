"""The budget for rendering a template once, in nodes (units of work) and bytes. It is charged before any work is done.

A template runs on the worker's event loop, beside all other commands of the worker. The sandbox protects the process;
the budget protects its memory and time from a typo (`'x' * 10 ** 9`, a loop in a loop in a loop). Here are the budget
and the costs of operators, slices, loops and values; `costs.py` has the costs of filters and methods.
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
"""Largest number of nodes that one rendering may use. A node is a unit of work, some 0.1 us: an element visited, a
round of a loop, a call. All nodes together take a tenth of a second."""
MAX_BYTES: Final = 64_000_000
"""Largest number of bytes of all texts and lists that one rendering makes. A plane accepts results up to the same
size."""
MAX_TIME_S: Final = 2.0
MAX_BITS: Final = 100_000
"""Largest number of bits of an integer that a template may make."""
PRINTED: Final = 6
"""Nodes (units of work) that each element of a value costs when the value is converted to text."""
CONTAINER_NODES: Final = 8
"""Nodes (units of work) that a list or object costs, in addition to its elements, when a template's value is visited.
If a list contains lists or objects, the cost of each element is also computed from this number."""
_MAPPING_NODES: Final = 12
"""Nodes (units of work) that visiting an object costs, without its entries. The entries are charged separately."""
_ENTRY_NODES: Final = 4
"""Least nodes (units of work) that an entry of an object (a key and its value) costs. Most of this work is finding the
types of key and value."""
_WRITTEN: Final = 8
"""Bytes charged to the rendering's budget for each byte of text in a list or object that a template writes as text. The
number is above 1, because quotes and escapes make the text longer."""
ROUND_NODES: Final = 8
"""Nodes (units of work) that a round of a loop costs. Each syntax node inside the loop adds half a node to a round."""
CALL_NODES: Final = 40
"""Nodes (units of work) that a call of a macro or of a recursive loop costs."""
COMPILED_NODES: Final = 1_000
"""Nodes (units of work) that compiling a template costs, in addition to its tokens. A cached template costs nothing."""
_TOKEN_NODES: Final = 150
"""Nodes (units of work) that compiling one token of a template costs. Compiling takes some 25 us and 4 kB a token, most
of the time in Python's compiler."""
COUNTED: Final = "_counted"
"""Name of the filter that `count_loops` puts around a loop's elements, so that each round is charged. `Environment`
refuses a template that uses this filter."""
_LONG_BITS: Final = 64
"""Largest number of bits of an integer that costs nothing extra. For longer integers, Python needs quadratic time to
write the digits."""
_POINTER: Final = 8
_ENTRY: Final = 100
"""Approximate memory of one entry of a dict, in bytes, without the contents of its key and value."""
_ATOMS: Final = frozenset({int, float, bool, type(None)})
_FLAT: Final = _ATOMS | {str}
_NO_ITERATORS: Final = frozenset({str, int, float, bool, list, dict, tuple})
_ONE_TEXT: Final = (str, bytes, int, float, type(None))
_LISTS: Final = (list, tuple, set, frozenset, range, KeysView, ValuesView, ItemsView)
_OPERANDS: Final = (int, float, str, list, tuple, dict, type(None), Undefined)
"""Types of values that templates may use with an operator. An operator with a value of another type has no known cost
and is refused."""
_KEYS: Final = (KeysView, set)
_SOUGHT_WEIGHT: Final = 80
"""Cost factor (`weight` of `Budget.charge_value`) for each element of `a` and of `b` in a template's `a.keys() - b`.
The factor is high, because Python looks up each element. A look-up is slow if up to `keys.MAX_NUMBERS` numeric keys
collide in Python's hash table."""
_NESTED_NODES: Final = 32
"""Nodes (units of work) that each item of a tuple costs if the tuple contains tuples. The cost limits the depth of
tuples: hashing recurses, and a deep tuple would overflow the C stack."""
_NUMBER: Final = re.compile(r"\d{1,18}")
_FIELD: Final = re.compile(r"[%{]")
_QUOTED: Final = re.compile(r"%[^a-zA-Z%]*[ra]|![ra]")
_WIDTH_FROM_ARGUMENT: Final = re.compile(r"%[-+ #0]*\*|%[^a-zA-Z%]*\.\*|\{[^{}]*:[^{}]*\{")


class Budget:
    """The nodes (units of work), bytes and time that one rendering of a template has left."""

    __slots__ = ("_bytes", "_ends_at", "_nodes", "heaviest_round")

    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._bytes = MAX_BYTES
        self._ends_at = time.monotonic() + MAX_TIME_S
        self.heaviest_round = ROUND_NODES

    def charge(self, count: int = 0, size: int = 0) -> None:
        """Subtract `count` nodes (units of work) and `size` bytes from the budget.

        Raises:
            SecurityError: the charge exceeds what the budget has left.
        """
        self._nodes -= count
        self._bytes -= size
        if self._nodes < 0:
            raise SecurityError(f"it takes more than {MAX_NODES:,} steps: do it in a python step, or on less data")
        if self._bytes < 0:
            raise SecurityError(f"it makes texts and lists of more than {MAX_BYTES:,} bytes: do it in a python step")

    def charge_round(self, count: int) -> None:
        """Charge the budget with `count` nodes (units of work) for one round of a loop or one call of a macro.

        Raises:
            SecurityError: the charge exceeds what the budget has left, or the rendering takes over MAX_TIME_S.
        """
        self.charge(count)
        if time.monotonic() > self._ends_at:
            raise SecurityError(f"it runs for more than {MAX_TIME_S:g} s: do it in a python step")

    def charge_value(self, value: Any, weight: int = 1, size: int = 1) -> None:
        """Charge the budget for a value and everything in it: nodes (units of work) for each element, in proportion to
        `weight`, and `size` times the bytes of the value's texts.

        An element that occurs twice in the value costs twice. A list without inner lists and objects costs far less
        than other lists, because no Python code visits its elements.
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
        """Charge the budget for converting an integer to text. Only a long integer costs anything."""
        if (bits := number.bit_length()) > _LONG_BITS:
            self.charge(bits * bits >> 16, size * (bits // 3))

    def charge_numbers(self, items: Collection[Any], size: int = 1, *, are_all: bool = False) -> None:
        """Charge the budget for converting the integers among `items` to text.

        Args:
            size: bytes to charge for each digit.
            are_all: True if all items are integers.
        """
        self.charge(len(items) // (4 if are_all else 2))
        numbers = items if are_all else [item for item in items if type(item) is int]
        with suppress(OverflowError):
            array("q", numbers)  # the quickest way to see that all are short
            return
        bits = [number.bit_length() for number in numbers]
        if max(bits) > _LONG_BITS:
            self.charge(sum(one * one for one in bits) >> 16, size * (sum(bits) // 3))

    def charge_printed(self, value: Any, times: int = 1) -> None:
        """Charge the budget for converting a value to text `times` times. All elements of a list or object are visited
        and written."""
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
        """Charge the budget for hashing the tuples among `values`. A look-up of a tuple hashes everything in it."""
        for value in values:
            if isinstance(value, tuple):
                self.charge_value(value, 1, 0)

    def as_list(self, value: Any) -> Any:
        """Return an iterator as a list, and charge the budget for each element. Return any other value unchanged."""
        if type(value) in _NO_ITERATORS or not isinstance(value, Iterator):
            return value
        return list(self.charge_each(value))

    def charge_each(self, items: Iterable[Any], weight: int = 1) -> Iterator[Any]:
        """Yield the items, and charge the budget for each item before it is yielded."""
        for item in items:
            self.charge(weight, _POINTER)
            yield item


def current_budget(context: Context) -> Budget:
    budget: Budget = context.budget  # type: ignore[attr-defined]  # every context is a TemplateScope, which has one
    return budget


def text_size(text: str | bytes) -> int:
    """Return an upper limit of the memory of a text, in bytes. For a bytes object, return the limit for its printed
    text."""
    return len(text) if isinstance(text, str) and text.isascii() else 4 * len(text)


def _texts_size(items: Collection[Any], is_texts_only: bool) -> int:
    """Return an upper limit of the memory, in bytes, of all texts among `items`.

    If all texts are ASCII, no Python code runs per text: charging must cost less than the work itself.
    """
    texts = items if is_texts_only else [item for item in items if isinstance(item, str)]
    return sum(map(len, texts)) if all(map(str.isascii, texts)) else sum(map(text_size, texts))


def charge_source(budget: Budget, source: str, tokens: Iterable[tuple[int, str, str]]) -> None:
    """Charge the rendering's budget for compiling a template, token by token."""
    budget.charge(COMPILED_NODES + 2 * source.count("\n"), text_size(source))
    for _, kind, _ in tokens:
        if kind != "whitespace":
            budget.charge(_TOKEN_NODES)


def count_loops(tree: nodes.Template) -> None:
    """Change a parsed template so that each round of a `for` loop is charged to the rendering's budget when the loop
    runs."""
    for loop in tree.find_all(nodes.For):
        weight = nodes.Const(ROUND_NODES + sum(1 for _ in loop.find_all(nodes.Node)) // 2)
        loop.iter = nodes.Filter(loop.iter, COUNTED, [weight], [], None, None, lineno=loop.lineno)


@pass_context
def counted(context: Context, items: Iterable[Any], weight: int) -> Iterator[Any]:
    """Yield the elements of a template's loop, and charge the rendering's budget with `weight` nodes (units of work)
    for each round."""
    budget = current_budget(context)
    budget.heaviest_round = max(budget.heaviest_round, weight)
    for item in items:
        budget.charge_round(weight)
        yield item


def charge_slice(budget: Budget, value: Any, part: slice) -> None:
    """Charge the rendering's budget for the copy that `value[start:stop:step]` makes."""
    if isinstance(value, Sized):
        count = len(range(*part.indices(len(value))))
        wide = isinstance(value, str) and not value.isascii()
        budget.charge(1, count * (4 if wide else 1 if isinstance(value, str) else _POINTER))


def charge_operation(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Charge the rendering's budget for `left operator right` before it is computed.

    Raises:
        SecurityError: the charge exceeds what the budget has left, or an operand has a type without a cost.
    """
    is_format = operator == "%" and isinstance(left, str)
    if operator == "-" and isinstance(left, _KEYS) and isinstance(right, (*_KEYS, list, tuple, dict)):
        budget.charge_value((left, right), _SOUGHT_WEIGHT)
        return
    for operand in (left,) if is_format else (left, right):
        if not isinstance(operand, _OPERANDS):
            raise SecurityError(
                f"operator {operator!r} of {type(operand).__name__!r} is not open to templates: do it in a python step"
            )
    if isinstance(left, int) and isinstance(right, int):
        charge_integer_operation(budget, operator, left, right)
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
        raise SecurityError(f"exponent {right} is over {MAX_BITS:,}: do it in a python step")
    else:
        budget.charge(1)


def joined_size(texts: Iterable[Any]) -> int:
    """Return an upper limit of the memory, in bytes, of all `texts` joined to one text. A single character beyond ASCII
    makes the whole text wide."""
    found = [text for text in texts if isinstance(text, str)]
    length = sum(map(len, found))
    return length if all(map(str.isascii, found)) else 4 * length


def charge_integer_operation(budget: Budget, operator: str, left: int, right: int) -> None:
    """Charge the rendering's budget for an operator on two integers, by the number of bits in the result."""
    bits = (left.bit_length(), right.bit_length())
    made = sum(bits) if operator == "*" else max(bits)
    if operator == "**" and right > 0:
        made = max(bits[0], 1) * right
    if made > MAX_BITS:
        raise SecurityError(f"it makes a number of over {MAX_BITS:,} bits: do it in a python step")
    budget.charge(1 + (made * made >> 18))


def charge_format(budget: Budget, template: str, arguments: Iterable[Any]) -> None:
    """Charge the rendering's budget for filling a format string (`%` or `str.format`). The charge assumes the worst:
    each number is a width, and each field prints all arguments."""
    if _WIDTH_FROM_ARGUMENT.search(template):
        raise SecurityError("a format takes a width from an argument: write the width as a number")
    budget.charge(len(template) // 4, 4 * text_size(template))
    widths = sum(int(number.group()) for number in _NUMBER.finditer(template))
    fields = sum(1 for _ in _FIELD.finditer(template))
    budget.charge(fields, 4 * widths)
    quotes = _QUOTED.search(template) is not None
    for argument in arguments if fields else ():
        budget.charge_printed([argument] if quotes else argument, fields)
