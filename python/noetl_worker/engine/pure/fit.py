"""Fit a result to an event: redact, measure, cut a preview. Twin: rust/engine/src/fit.rs.

The preview is small enough to travel in every event and can be navigated like the result: objects stay objects,
arrays keep their first element, texts their first 512 bytes. What was left out is shown by `_truncated`, with
`_keys` (keys of the object), `_count` (elements of the array) or `_len` (bytes of the text), all of the original.
"""

from __future__ import annotations

from typing import Final

from noetl_worker.engine.pure.document import encode, parse
from noetl_worker.engine.pure.redact import Redactor
from noetl_worker.models.fit import FitRules, FittedResult
from noetl_worker.models.wire import JsonValue

TEXT_BYTES: Final = 512
"""Longest text of a preview, in bytes of UTF-8."""


def fit_result(data: bytes, rules: FitRules) -> FittedResult:
    """Redact a JSON document, measure its compact form, preview it when that is over `rules.max_bytes`.

    Raises:
        DocumentError: the bytes are not JSON.
    """
    redacting = Redactor(rules.secrets, rules.secret_words)
    value = redacting.value(parse(data))
    made = encode(value)
    body = data if made == data else made  # megabytes in which nothing was replaced are not held twice
    summary = preview(value, rules) if len(body) > rules.max_bytes else None
    return FittedResult(body, len(body), redacting.count, summary)


def preview(value: JsonValue, rules: FitRules) -> bytes:
    """Return a bounded summary as compact JSON, never over `rules.preview_bytes` (but for `null`)."""
    return _Preview(rules.preview_depth).of(value, 1, rules.preview_bytes) or b"null"


class _Preview:
    """Each call gets a budget in bytes and returns JSON within it, or None when nothing useful fits."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth

    def of(self, value: JsonValue, depth: int, budget: int) -> bytes | None:
        if type(value) is dict:
            made = self._object(value, depth, budget) if depth <= self._max_depth else _mark("_keys", len(value))
        elif type(value) is list:
            made = self._array(value, depth, budget) if depth <= self._max_depth else _mark("_count", len(value))
        elif type(value) is str:
            made = encode(_head(value))
        else:
            made = encode(value)
        return made if made is not None and len(made) <= budget else None

    def _array(self, value: list[JsonValue], depth: int, budget: int) -> bytes | None:
        if len(value) == 0:
            return b"[]"
        if len(value) == 1:
            only = self.of(value[0], depth + 1, budget - 2)
            return b"[" + only + b"]" if only is not None else _mark("_count", 1)
        mark = _mark("_count", len(value))
        first = self.of(value[0], depth + 1, budget - 3 - len(mark))
        return b"[" + first + b"," + mark + b"]" if first is not None else mark

    def _object(self, value: dict[str, JsonValue], depth: int, budget: int) -> bytes | None:
        """Small values first, so that a `row_count` after a thousand rows survives; containers share what is left."""
        mark = _mark("_keys", len(value))[1:-1]
        room = budget - 2 - len(mark) - 1
        plain = [key for key, child in value.items() if type(child) not in (dict, list)]
        containers = [key for key, child in value.items() if type(child) in (dict, list)]
        made: dict[str, bytes] = {}
        longest_cut = 0
        for number, key in enumerate([*plain, *containers]):
            if room < 6:
                break
            share = room if number < len(plain) else room // (len(value) - number)
            piece = self._member(key, value[key], depth, share)
            if piece is not None:
                made[key] = piece
                room -= len(piece) + 1
                longest_cut = max(longest_cut, _size_if_cut(value[key]))
        pieces = [made[key] for key in value if key in made]
        if len(made) < len(value):
            pieces.append(mark)
        elif longest_cut:
            cut = _mark("_len", longest_cut)[1:-1]
            if len(cut) <= room + len(mark):
                pieces.append(cut)
        return b"{" + b",".join(pieces) + b"}"

    def _member(self, key: str, child: JsonValue, depth: int, room: int) -> bytes | None:
        name = encode(key) + b":"
        made = self.of(child, depth + 1, room - len(name))
        return name + made if made is not None else None


def _mark(name: str, number: int) -> bytes:
    return b'{"_truncated":true,"%s":%d}' % (name.encode("ascii"), number)


def _size_if_cut(value: JsonValue) -> int:
    size = len(value.encode("utf-8")) if type(value) is str else 0
    return size if size > TEXT_BYTES else 0


def _head(text: str) -> str:
    """Cut a text to 512 bytes of UTF-8 without splitting a character."""
    data = text.encode("utf-8")
    return text if len(data) <= TEXT_BYTES else data[:TEXT_BYTES].decode("utf-8", "ignore")
