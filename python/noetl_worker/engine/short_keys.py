"""A cache whose keys come from playbooks. The number of keys and their length are bounded."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

_LONGEST: Final = 1_000
"""Length, in characters, of the longest key that a `ByShortKey` cache stores with its value. For a longer key, the
cache makes the value anew at each access."""
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByShortKey(dict[_Key, _Value]):
    """A cache in which `cache[key]` is `make(key)`. It stores only keys of at most `_LONGEST` characters. When it has
    `most` keys, it is cleared."""

    def __init__(self, make: Callable[[_Key], _Value], most: int) -> None:
        self._make = make
        self._most = most

    def __missing__(self, key: _Key) -> _Value:
        value = self._make(key)
        if len(key if isinstance(key, str) else repr(key)) <= _LONGEST:
            if len(self) >= self._most:
                self.clear()  # one atomic step, since other threads read the cache meanwhile
            self[key] = value
        return value
