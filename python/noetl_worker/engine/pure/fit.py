"""Preparation of a tool's result for an event: redact it, measure it, and make a preview if it is too large.

The preview is small enough for every event and has the structure of the result: objects stay objects, arrays keep
their first element, strings their first 512 bytes. `_truncated` shows that something was left out. The key `_keys`,
`_count` or `_len` beside `_truncated` has the original number of keys, array elements or bytes of a string.

Rust counterpart: rust/engine/src/fit.rs.
"""

from __future__ import annotations

from typing import Final

from noetl_worker.engine.pure.document import encode, parse
from noetl_worker.engine.pure.redact import Redactor
from noetl_worker.engine.pure.secrets import Secrets
from noetl_worker.engine.pure.wrapped import broken_texts, with_lines
from noetl_worker.models.fit import FitRules, FittedResult
from noetl_worker.models.wire import JsonValue

TEXT_BYTES: Final = 512
"""Largest length of a string in the preview of a result, in bytes of UTF-8. Longer strings are cut."""


def fit_result(data: bytes, rules: FitRules) -> FittedResult:
    """Redact a tool's JSON result and measure it as compact JSON. Make a preview if it is over `rules.max_bytes`.

    Raises:
        DocumentError: the bytes are not JSON.
    """
    document = parse(data)
    secrets = Secrets(rules.secrets, rules.secret_words)
    if b"\\n" in data:
        secrets = with_lines(secrets, broken_texts(document))
    redacting = Redactor(secrets)
    value = redacting.value(document)
    made = encode(value)
    body = data if made == data else made  # an unchanged document of megabytes is not held twice
    summary = preview(value, rules) if len(body) > rules.max_bytes else None
    return FittedResult(body, len(body), redacting.count, summary)


def preview(value: JsonValue, rules: FitRules) -> bytes:
    """Shorten `value` to compact JSON of at most `rules.preview_bytes`. Return `null` if no useful part fits."""
    return _shortened(value, rules.preview_depth, rules.preview_bytes) or b"null"


def _shortened(value: JsonValue, levels: int, budget: int) -> bytes | None:
    """Shorten a value to JSON of at most `budget` bytes and `levels` nested containers.

    Return None if no useful part fits.
    """
    if isinstance(value, dict):
        made = _object(value, levels, budget) if levels > 0 else _mark("_keys", len(value))
    elif isinstance(value, list):
        made = _array(value, levels, budget) if levels > 0 else _mark("_count", len(value))
    elif isinstance(value, str):
        made = encode(_head(value))
    else:
        made = encode(value)
    return made if len(made) <= budget else None


def _array(value: list[JsonValue], levels: int, budget: int) -> bytes:
    if len(value) == 0:
        return b"[]"
    if len(value) == 1:
        only = _shortened(value[0], levels - 1, budget - 2)
        return b"[" + only + b"]" if only is not None else _mark("_count", 1)
    mark = _mark("_count", len(value))
    first = _shortened(value[0], levels - 1, budget - 3 - len(mark))
    return b"[" + first + b"," + mark + b"]" if first is not None else mark


def _object(value: dict[str, JsonValue], levels: int, budget: int) -> bytes:
    """Shorten an object to about `budget` bytes.

    Scalars get their space first, so that a `row_count` after a thousand rows is kept. Arrays and objects inside share
    the remaining space.
    """
    mark = _mark("_keys", len(value))[1:-1]
    room = budget - 2 - len(mark) - 1
    containers_last = sorted(value, key=lambda key: isinstance(value[key], (dict, list)))
    made: dict[str, bytes] = {}
    longest_cut = 0
    for number, key in enumerate(containers_last):
        if room < 6:
            break
        child, name = value[key], encode(key) + b":"
        share = room // (len(value) - number) if isinstance(child, (dict, list)) else room
        within = _shortened(child, levels - 1, share - len(name))
        if within is not None:
            made[key] = name + within
            room -= len(made[key]) + 1
            longest_cut = max(longest_cut, _size_if_cut(child))
    pieces = [made[key] for key in value if key in made]
    if len(made) < len(value):
        pieces.append(mark)
    elif longest_cut:
        cut = _mark("_len", longest_cut)[1:-1]
        if len(cut) <= room + len(mark):
            pieces.append(cut)
    return b"{" + b",".join(pieces) + b"}"


def _mark(name: str, number: int) -> bytes:
    return b'{"_truncated":true,"%s":%d}' % (name.encode("ascii"), number)


def _size_if_cut(value: JsonValue) -> int:
    size = len(value.encode("utf-8")) if isinstance(value, str) else 0
    return size if size > TEXT_BYTES else 0


def _head(text: str) -> str:
    """Cut a text to 512 bytes of UTF-8 without splitting a character."""
    data = text.encode("utf-8")
    return text if len(data) <= TEXT_BYTES else data[:TEXT_BYTES].decode("utf-8", "ignore")
