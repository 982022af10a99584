"""What is kept of texts that playbooks choose: so many of them, and none that is long."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

_LONGEST: Final = 1_000
"""Characters: what is longer is worked out each time."""
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByShortKey(dict[_Key, _Value]):
    """`made[key]` is `make(key)`, kept for short keys; a full one begins anew."""

    def __init__(self, make: Callable[[_Key], _Value], most: int) -> None:
        self._make = make
        self._most = most

    def __missing__(self, key: _Key) -> _Value:
        value = self._make(key)
        if len(key if isinstance(key, str) else repr(key)) <= _LONGEST:
            if len(self) >= self._most:
                self.clear()  # at once: other threads read it
            self[key] = value
        return value
