"""How much one template may do: steps, time, and the size of what it makes.

A template runs on the worker's event loop, beside every other command of the worker. The sandbox keeps it away from
the process; these keep a typo (`'x' * 10 ** 9`, a loop in a loop in a loop) away from its memory and its time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.utils import pass_context

__all__ = ["COUNTED", "Budget", "check_call", "check_format", "check_operation", "check_size", "count_loops", "counted"]

MAX_STEPS: Final = 500_000
"""Rounds of all loops and calls of macros of one rendering together; some 0.2 s when they do little."""
MAX_TIME_S: Final = 2.0
MAX_SIZE: Final = 32_000_000
"""Characters of one text: half of the largest result that a plane takes."""
MAX_ITEMS: Final = 2_000_000
"""Elements of one list."""
MAX_BITS: Final = 100_000
MAX_WIDTH: Final = 1_000_000
COUNTED: Final = "_counted"
"""The filter that `count_loops` puts around what a loop goes over; no playbook can name it (see `Environment`)."""
_WIDTH: Final = re.compile(r"\d{7,}|%[-+ #0]*\*|\{[^{}]*:[^{}]*\{")
"""A width of seven digits, or one that is an argument."""
_PADDING: Final = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})


class Budget:
    """What one rendering has left."""

    __slots__ = ("_ends_at", "_steps")

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._ends_at = time.monotonic() + MAX_TIME_S

    def step(self) -> None:
        """Raises SecurityError: one round too many."""
        self._steps -= 1
        if self._steps < 0:
            raise SecurityError(f"its loops go round more than {MAX_STEPS:,} times")
        if time.monotonic() > self._ends_at:
            raise SecurityError(f"it runs for more than {MAX_TIME_S:g} s")


def count_loops(tree: nodes.Template) -> None:
    """Make every `for` of a parsed template count its rounds."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, COUNTED, [], [], None, None, lineno=loop.lineno)


@pass_context
def counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """`items`, one step each."""
    budget: Budget = context.budget  # type: ignore[attr-defined]  # Scope has one
    for item in items:
        budget.step()
        yield item


def check_size(size: int, sample: Any = "") -> None:
    """Raises SecurityError: no text (no list, when `sample` is one) may become so large."""
    if size > (MAX_SIZE if isinstance(sample, str) else MAX_ITEMS):
        what = f"text of over {MAX_SIZE:,} characters" if isinstance(sample, str) else f"list of over {MAX_ITEMS:,}"
        raise SecurityError(f"it makes a {what}")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Whether `left operator right` stays within bounds; asked before it is done, for `*`, `**`, `+` and `%`."""
    if operator == "%":
        check_format(left)
    elif operator == "+":
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            check_size(len(left) + len(right), left)
    elif operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, (str, list, tuple)) and isinstance(times, int):
                check_size(len(items) * max(times, 0), items)
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_bits(max(left.bit_length(), 1) * right)
    elif isinstance(right, (int, float)) and abs(right) > MAX_BITS:
        raise SecurityError(f"exponent {right} is over {MAX_BITS:,}")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise SecurityError(f"it makes a number of over {MAX_BITS:,} bits")


def check_format(template: Any) -> None:
    """Raises SecurityError: a format (`%` or `str.format`) with a width that makes a large text of nothing."""
    if isinstance(template, str) and _WIDTH.search(template):
        raise SecurityError("a width in its format is over a million, or an argument")


def check_call(context: Context, function: Any, arguments: tuple[Any, ...]) -> None:
    """Macros and recursive loops, which call themselves, and methods of texts that make a large one of a small one."""
    if isinstance(function, (Macro, LoopContext)):
        context.budget.step()  # type: ignore[attr-defined]  # Scope has one
        return
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if not isinstance(owner, str):
        return
    if name in _PADDING:
        widths = [argument for argument in arguments if isinstance(argument, int)]
        if widths and max(widths) > MAX_WIDTH:
            raise SecurityError(f"{name}: a width of over {MAX_WIDTH:,}")
    elif name == "replace" and len(arguments) >= 2:
        check_replacement(owner, str(arguments[0]), str(arguments[1]))
    elif name == "join" and arguments and hasattr(arguments[0], "__len__"):
        check_size(len(owner) * len(arguments[0]))


def check_replacement(text: str, old: str, new: str) -> None:
    """Raises SecurityError: every `old` as a `new` would be too large."""
    if len(new) > len(old):
        check_size(len(text) + (text.count(old) if old else len(text) + 1) * (len(new) - len(old)))
