"""What may be a key of an object that a template makes.

Python finds keys by their hash. Of a text it is another one in each process. Of numbers and tuples it is known: who
chooses them well has each compared with each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace

_LONGEST: Final = 60
"""Bits of a whole number: among longer ones are many with the same hash."""
MAX_NUMBERS: Final = 4_000
"""Of one object. Shorter numbers have hashes of their own, but can be chosen so that the places which Python tries for
them are taken: one of these is found as fast as a budget of its object's size allows."""
KEY_TYPES: Final = (str, int, float, type(None), Undefined)


def new_object(pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    """`dict(...)`."""
    made = dict(pairs) if isinstance(pairs, Mapping) else _checked(pairs)
    made.update(named)
    return made


def _checked(pairs: Iterable[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    numbers = 0
    for key, value in pairs:
        if not isinstance(key, str):
            if not isinstance(key, KEY_TYPES):
                raise SecurityError(f"dict: a key is a text or a number, no {type(key).__name__}; make it a text")
            if isinstance(key, int) and key.bit_length() > _LONGEST:
                raise SecurityError(f"dict: a key of over {_LONGEST} bits; make it a text")
            numbers += key not in made
            if numbers > MAX_NUMBERS:
                raise SecurityError(f"dict: over {MAX_NUMBERS:,} keys that are numbers; make them texts")
        made[key] = value
    return made


class CheckedNamespace(Namespace):
    """`namespace(...)`: its keys are those of `new_object`, and it prints without what is in it."""

    def __init__(self, pairs: Any = (), /, **named: Any) -> None:
        super().__init__(new_object(pairs, **named))

    def __repr__(self) -> str:
        return "<Namespace>"


def distinct(value: Any) -> Any:
    """The same for equal values, and different for others; only texts decide its hash."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return (int, hex(value))
    if isinstance(value, float):
        return (float, value.hex())
    if isinstance(value, tuple):
        return (tuple, *map(distinct, value))
    return value
