"""Limits for the keys of objects that templates make.

Python finds keys by their hash. The hash of a text differs in each process, but the hash of a number or tuple can be
predicted: well-chosen keys would all collide, and each would be compared with every other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace

_LONGEST: Final = 60
"""Largest number of bits that an integer key may have. Python computes a hash modulo 2**61 - 1, so an attacker could
give many longer keys with the same hash, which make each look-up slow."""
MAX_NUMBERS: Final = 4_000
"""Largest number of numeric keys in one object. An attacker can choose numbers with different hashes whose positions in
Python's hash table still collide. With this many keys, one look-up still costs little."""
KEY_TYPES: Final = (str, int, float, type(None), Undefined)


def new_object(pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    """Return a new dict with checked keys, for `dict(...)` and `{...}` in a template.

    Raises:
        SecurityError: a key is not allowed.
    """
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
    """The object that `namespace(...)` makes in a template. Its keys are checked against the limits for keys. Printing
    this object shows none of its content."""

    def __init__(self, pairs: Any = (), /, **named: Any) -> None:
        super().__init__(new_object(pairs, **named))

    def __repr__(self) -> str:
        return "<Namespace>"


def distinct(value: Any) -> Any:
    """Return a hashable value that stands for `value` in a set, so that `unique` can find equal values.

    Equal values have equal stand-ins, different values have different ones. In a stand-in, numbers are written
    as text, because Python's hash of a number can be predicted, but not that of a text. So a template's author cannot
    choose numbers with equal hashes, which would make the set slow.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return (int, hex(value))
    if isinstance(value, float):
        return (float, value.hex())
    if isinstance(value, tuple):
        return (tuple, *map(distinct, value))
    return value
