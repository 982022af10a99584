"""A JSON parser that works in small pieces, so that other threads can run between two pieces. `json.loads` would hold
the interpreter's lock until the whole text is parsed: 4 s for 12 MB of `[],`.

This module only finds where a piece ends. The caller's function parses each piece of at most 64 kB. So the result is
the same as that of parsing the whole text at once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from noetl_worker.process.threads import take_turns

__all__ = ["loads_in_pieces"]

_WINDOW: Final = 1 << 16
"""Largest number of bytes of a JSON text that are parsed at once, as one piece."""
_MOST_NESTED: Final = 32
"""Largest nesting depth of arrays and objects that are too large to be parsed at once. `loads_in_pieces` raises
ValueError for a JSON text with a greater depth."""
_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_WORD: Final = re.compile(rb"[^ \t\n\r,\]}]*")
_TEXT: Final = re.compile(rb'(?:[^"\\]+|\\u[dD][89abAB]..\\u....|\\u(?![dD][89abAB])....|\\[^u])*', re.DOTALL)
"""Pattern for complete characters and escapes inside a JSON string. An escaped surrogate pair counts as one character,
so that a pair is never split."""
_STEPS: Final = {0x5B: -1, 0x7B: -1, 0x5D: 1, 0x7D: 1}
"""Change of the nesting depth at each bracket or brace, when the text is read backwards."""
_skip: Final = json.JSONDecoder(parse_int=float).scan_once  # type: ignore[attr-defined]
"""Function that finds the end of a JSON value. Its input is bytes decoded as Latin-1, so that each byte is one
character."""


def loads_in_pieces(data: bytes, read: Callable[[bytes], Any], window: int = _WINDOW) -> Any:
    """Parse one JSON text in pieces, and let other threads run between two pieces.

    Args:
        data: JSON in UTF-8.
        read: function that parses one piece. It raises ValueError for a text that is not JSON.
        window: largest number of bytes that are parsed at once, as one piece.

    Raises:
        ValueError: the text is not JSON, or large values are nested too deeply.
        TimeoutError: the command that needs the value has ended (`take_turns`).
    """
    reader = _PieceReader(data, read, window)
    value, end = reader.value(reader.skip_space(0), 0)
    if reader.skip_space(end) != len(data):
        raise ValueError(f"unexpected text after the value, at byte {end}")
    return value


def _last_comma(window: bytes) -> int:
    """Return the position of the comma after the last complete member in `window`, or 0 if no member is complete.

    Args:
        window: bytes that begin with a member of a list or object.
    """
    parts = window.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
    at = len(window)
    if len(parts) % 2 == 0:  # the window ends within a text
        at -= len(parts.pop()) + 1
    code = b"".join(parts[::2])
    depth = code.count(b"[") + code.count(b"{") - code.count(b"]") - code.count(b"}")
    for number in range(len(parts) - 1, -1, -1):
        if number % 2:
            at -= len(parts[number]) + 2
            continue
        for sign in reversed(parts[number]):
            at -= 1
            if sign == 0x2C and depth == 0:
                return at
            depth += _STEPS.get(sign, 0)
    return 0


def _end(pattern: re.Pattern[bytes], data: bytes, start: int, most: int = sys.maxsize) -> int:
    found = pattern.match(data, start, most)
    assert found is not None  # each pattern also matches an empty text
    return found.end()


class _PieceReader:
    def __init__(self, data: bytes, read: Callable[[bytes], Any], window: int) -> None:
        self._data, self._read, self._window = data, read, window

    def skip_space(self, at: int) -> int:
        return _end(_SPACE, self._data, at)

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Parse the value that begins at byte `at`. Return the value and the position after it."""
        sign = self._data[at : at + 1]
        if sign in (b"[", b"{"):
            if depth == _MOST_NESTED:
                raise ValueError(f"large values are nested more than {_MOST_NESTED} times, at byte {at}")
            return self._container(at, depth)
        if sign == b'"':
            return self._text(at)
        end = _end(_WORD, self._data, at, at + self._window)
        return self._read(self._data[at:end]), end

    def _container(self, at: int, depth: int) -> tuple[Any, int]:
        is_object = self._data[at] == 0x7B
        opening, closing = (b"{", b"}") if is_object else (b"[", b"]")
        made: Any = {} if is_object else []
        add = made.update if is_object else made.extend
        at = first = at + 1
        while True:
            take_turns()
            window = self._data[at : at + self._window]
            is_unreadable = False
            if comma := _last_comma(window):
                try:
                    if members := self._read(b"%b%b%b" % (opening, window[:comma], closing)):
                        add(members)
                        at += comma + 1
                        continue
                except ValueError:  # the end of the container is before this comma, or the text is not JSON
                    is_unreadable = True
            try:
                end = _skip((opening + window).decode("latin-1"), 0)[1] - 1
                members = self._read(opening + window[:end])
                if members or at == first:  # after a comma there must be a member
                    add(members)
                    return made, at + end
            except (StopIteration, ValueError):
                if is_unreadable:  # the text is damaged: reading each member alone would take a whole window for each
                    raise ValueError(f"a value between byte {at} and byte {at + comma} is not JSON") from None
            except RecursionError:
                pass
            member, at = self._member(at, depth + 1, is_object=is_object)
            add(member)
            at = self.skip_space(at)
            sign = self._data[at : at + 1]
            at += 1
            if sign == closing:
                return made, at
            if sign != b",":
                raise ValueError(f"expected a comma or a closing bracket, at byte {at - 1}")

    def _member(self, at: int, depth: int, *, is_object: bool) -> tuple[Any, int]:
        """Parse the list item or object member at byte `at`. Return a tuple with only this item, or a dict with only
        this member, and the position after the item or member."""
        at = self.skip_space(at)
        if not is_object:
            value, end = self.value(at, depth)
            return (value,), end
        if self._data[at : at + 1] != b'"':
            raise ValueError(f"expected a key in double quotes, at byte {at}")
        name, at = self._text(at)
        at = self.skip_space(at)
        if self._data[at : at + 1] != b":":
            raise ValueError(f"expected a colon after a key, at byte {at}")
        value, end = self.value(self.skip_space(at + 1), depth)
        return {name: value}, end

    def _text(self, at: int) -> tuple[str, int]:
        parts: list[str] = []
        at += 1
        while True:
            end = _end(_TEXT, self._data, at, at + self._window)
            while end > at and self._data[end : end + 1] >= b"\x80" and self._data[end] & 0xC0 == 0x80:
                end -= 1  # do not cut within a UTF-8 character
            parts.append(self._read(b'"%b"' % self._data[at:end]))
            if self._data[end : end + 1] == b'"':
                return "".join(parts), end + 1
            if end == at:
                raise ValueError(f"unterminated text, at byte {at}")
            at = end
            take_turns()
