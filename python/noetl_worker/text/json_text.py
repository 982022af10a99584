"""Reading and writing of JSON, with orjson if it is installed.

`loads` keeps 64-bit ids exact with both libraries. `dumps` always gives valid compact JSON: values that JSON does not
have (NaN, Decimal, datetime, bytes, sets, ints beyond 64 bits, lone surrogates) get a defined form, since a result
must not be lost for one odd value. The values are the same with and without orjson; tests/unit/test_json_text.py
compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.models.exact_decoder import exact_decoder, read_float, refuse_constant
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.json_pieces import loads_in_pieces
from noetl_worker.process.room import MOST_OF_ONE, room
from noetl_worker.process.threads import LARGE, off_loop, take_turns
from noetl_worker.text.plain_values import TEXTS, key_text, plain

orjson: Any
try:
    import orjson
except ImportError:  # no wheel for this platform: slower, with the same answers
    orjson = None

__all__ = ["dumps", "embed", "escaped_size", "fits", "loads", "loads_exact", "loads_in_room", "memory_of", "plain"]

_MAX_UINT64: Final = 2**64 - 1
_MIN_INT64: Final = -(2**63)
"""Least integer that orjson and serde accept; `_MAX_UINT64` is the largest. Each plane reads JSON with one of these two
libraries."""
_MAX_INT_CHARS: Final = 20
_LONG_NUMBER: Final = b"0" * 19
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
"""Table that replaces each digit by `0`. `loads_exact` then finds a long number by a search for zeros (0.8 ms a MB). A
regular expression would take ten times as long."""
_EMBEDDED_DEPTH: Final = 8
"""Largest depth at which `dumps` without orjson looks for values that are ready JSON text (made by `embed`), and copies
this text unchanged. At a greater depth the text is parsed and written again, which is slower."""
_ESCAPE_CHARS: Final = 6
"""Length of an escaped UTF-16 code unit, in characters: `\\u` and four digits."""
_MEMORY_OF: Final = {b"[": 250, b"{": 250, b":": 100, b",": 32, b'"': 28}
"""Approximate bytes of memory in CPython that each of these JSON characters stands for, such as a list for `[` or a
dict's entry for `:`. The bytes of strings are counted separately. Lists and objects count double, because the garbage
collector stops all threads while it visits them."""
_AT_ONCE: Final = 16 << 20
"""Largest number of bytes of memory, for JSON and its values together, that one call of the parser may take: 20 ms of
work. Larger JSON is parsed in pieces, and other threads run in between."""
_MOST_GROWTH: Final = 95
"""Largest number of bytes of memory for each byte of JSON, for the JSON and its values together. The worst JSON is
`[],` repeated."""
_SHORT: Final = _AT_ONCE // _MOST_GROWTH
"""Largest number of bytes of JSON that is parsed without an estimate of its memory. Even at `_MOST_GROWTH` bytes of
memory for each byte, such JSON stays within `_AT_ONCE`, the memory that one call of the parser may take."""
_LOOKED_AT: Final = 1 << 18
"""Bytes of JSON in one step of the memory estimate. Other threads may run between two steps."""
_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
_OPTIONS: Final = (
    0
    if orjson is None
    # orjson leaves out a dataclass's fields that begin with `_`, and cuts the seconds of a time zone. Its option for
    # keys that are not texts is not used, because it writes floats differently in each version (1e-5, 0.00001).
    else orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)


def loads(data: bytes | str) -> JsonValue:
    """Parse one JSON text. An integer beyond 64 bits is read as a float.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: `json_syntax`, with the position; `json_size` if the values would take over 512 MiB of memory.
    """
    try:
        if data[_SHORT : _SHORT + 1]:  # not `len`, which would be one more call for each text of each command
            return _large(data, _loads)
        return orjson.loads(data) if orjson is not None else _loads_exactly(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError("json_syntax", f"not JSON: {error}") from error


def loads_exact(data: bytes | str) -> JsonValue:
    """Parse one JSON text, keeping integers beyond 64 bits, for data from outside that the worker passes on.

    `dumps` writes such a number as decimal text; a float would be a different number.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: `json_syntax`, or `json_size` if the values would take over 512 MiB of memory.
    """
    try:
        return _large(data, _loads_with_digits) if data[_SHORT : _SHORT + 1] else _loads_with_digits(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError("json_syntax", f"not JSON: {error}") from error


async def loads_in_room(data: bytes, owner: object, read: Callable[[bytes], JsonValue] = loads_exact) -> JsonValue:
    """Parse JSON from a server. Large JSON is parsed in a thread, once the memory budget has room for its values.

    Args:
        data: bytes in UTF-8.
        owner: object to whose share of the memory budget the values count, until the object is deleted.
        read: `loads` or `loads_exact`.

    Raises:
        DocumentError: `json_syntax`, or `json_size` if the values would take over 512 MiB of memory.
        ToolError: kind `resource` if all data of `owner` would take over 512 MiB of memory.
    """
    size = len(data)
    if size <= LARGE:
        return read(data)
    memory = await off_loop(size if size > _SHORT else 0, partial(memory_of, data))
    await room.take(memory - size, owner)
    return await off_loop(size, partial(read, data))


def memory_of(data: bytes | str) -> int:
    """Return the approximate bytes of memory of a JSON text and its values together.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: `json_size` if text and values would take over 512 MiB. Nothing has been parsed.
    """
    raw = data.encode() if isinstance(data, str) else data
    size = len(raw)
    if size * _MOST_GROWTH <= _AT_ONCE:
        return size * _MOST_GROWTH
    size += sum(map(_memory_of_signs, _pieces(raw)))
    if size > _AT_ONCE:  # signs within texts may have been counted too: count again without them
        size = len(raw) + _memory_of_values(raw)
    if size > MOST_OF_ONE:
        reason = f"{len(raw):,} bytes of JSON that would take {size >> 20:,} MiB of memory, over {MOST_OF_ONE >> 20}"
        raise DocumentError("json_size", f"{reason}: pass on fewer values, or a file")
    return size


def _large(data: bytes | str, read: Callable[[bytes], JsonValue]) -> JsonValue:
    raw = data.encode() if isinstance(data, str) else data
    return read(raw) if memory_of(raw) <= _AT_ONCE else loads_in_pieces(raw, read)


def _loads(data: bytes) -> JsonValue:
    value: JsonValue = orjson.loads(data) if orjson is not None else _loads_exactly(data)
    return value


def _loads_with_digits(data: bytes | str) -> JsonValue:
    raw = data.encode() if isinstance(data, str) else data
    is_long = orjson is None or _LONG_NUMBER in raw.translate(_DIGITS_AS_ZEROS)
    return _loads_exactly(raw, exact_decoder) if is_long else _loads(raw)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield JSON in pieces of `_LOOKED_AT` bytes, and let other threads run between two pieces.

    A backslash and the character that it escapes are never in different pieces.
    """
    start = 0
    while piece := data[start : start + _LOOKED_AT]:
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = data[start : start + _LOOKED_AT + 1]
        yield piece
        start += len(piece)
        take_turns()


def _memory_of_signs(data: bytes) -> int:
    return sum(size * data.count(sign) for sign, size in _MEMORY_OF.items())


def _memory_of_values(raw: bytes) -> int:
    """Return the approximate memory of the values in JSON. A character such as `[` counts only outside strings."""
    size, is_text = 0, 0
    for piece in _pieces(raw):
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        size += _memory_of_signs(b"".join(parts[is_text::2])) + _MEMORY_OF[b'"'] * (len(parts) - 1)
        is_text ^= 1 - len(parts) % 2
    return size


def _loads_exactly(data: bytes | str, decoder: json.JSONDecoder | None = None) -> JsonValue:
    """Parse JSON with the standard library as strictly as orjson: only UTF-8, no lone surrogate, no infinite number."""
    raw = data.encode() if isinstance(data, str) else bytes(data)
    value: JsonValue = (decoder or _decoder).decode(raw.decode())
    if b"\\u" in raw:
        json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    return value


def _read_int(text: str) -> int | float:
    if len(text) <= _MAX_INT_CHARS:
        value = int(text)
        if _MIN_INT64 <= value <= _MAX_UINT64:
            return value
    return read_float(text)


_decoder: Final = json.JSONDecoder(parse_int=_read_int, parse_float=read_float, parse_constant=refuse_constant)


def dumps(value: JsonValue) -> bytes:
    """Return a value as compact JSON in UTF-8.

    Args:
        value: any value. `plain` converts values that JSON does not have.
    """
    if orjson is not None:
        try:
            packed: bytes = orjson.dumps(value, default=_default, option=_OPTIONS)
            return packed
        except TypeError:  # an int beyond 64 bits, a lone surrogate or a key that is no text goes the slow way
            pass
    return _dump_embedded(value, _EMBEDDED_DEPTH)


def escaped_size(data: bytes) -> int:
    """Return the length of JSON after `json.dumps` has escaped the JSON to printable ASCII. The Python plane applies
    its size limits to this length.

    `json.dumps` also writes an exponent with one more character (`1e+16`). That character is not counted: an event has
    room for it.

    Args:
        data: compact JSON in UTF-8.
    """
    deletes = (_ESCAPE_CHARS - 1) * data.count(b"\x7f")
    if data.isascii():
        return len(data) + deletes
    units = len(data.decode().encode("utf-16-le")) // 2
    plain_units = len(data.translate(None, _BEYOND_ASCII))
    return plain_units + _ESCAPE_CHARS * (units - plain_units) + deletes


def fits(data: bytes, max_bytes: int) -> bool:
    """Return True if JSON fits a size limit of the Python plane, which measures escaped JSON (`escaped_size`).

    Args:
        data: compact JSON in UTF-8.
        max_bytes: largest size of the escaped form.
    """
    return len(data) * _ESCAPE_CHARS <= max_bytes or (len(data) <= max_bytes and escaped_size(data) <= max_bytes)


class _Embedded:
    """JSON that `dumps` inserts without parsing. Replaces `orjson.Fragment` if orjson is not installed."""

    __slots__ = ("contents",)

    def __init__(self, contents: bytes) -> None:
        self.contents = contents


def embed(body: bytes) -> Any:
    """Wrap JSON in an object that `dumps` replaces by this JSON, without parsing the JSON again.

    Args:
        body: JSON in UTF-8.
    """
    return orjson.Fragment(body) if orjson is not None else _Embedded(body)


def _embedded_bytes(value: Any) -> bytes:
    contents: bytes = value.contents if isinstance(value, _Embedded) else orjson.dumps(value)
    return contents


TEXTS[_Embedded if orjson is None else orjson.Fragment] = lambda value: loads(_embedded_bytes(value))


def _has_embedded(value: Any, depth: int) -> bool:
    if depth and isinstance(value, dict):
        return any(_has_embedded(item, depth - 1) for item in value.values())
    if depth and isinstance(value, list):
        return any(_has_embedded(item, depth - 1) for item in value)
    return type(value) in TEXTS


def _dump_embedded(value: Any, depth: int) -> bytes:
    """Return a value as JSON by the standard library. Ready JSON text (made by `embed`) in the first `depth` levels is
    copied unchanged."""
    if type(value) in TEXTS:
        return _embedded_bytes(value)
    if depth and isinstance(value, dict) and _has_embedded(value, depth):
        members = (_text(key_text(key)) + b":" + _dump_embedded(item, depth - 1) for key, item in value.items())
        return b"{" + b",".join(members) + b"}"
    if depth and isinstance(value, list) and _has_embedded(value, depth):
        return b"[" + b",".join(_dump_embedded(item, depth - 1) for item in value) + b"]"
    return _text(plain(value))


def _text(value: JsonValue) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _default(value: Any) -> JsonValue:
    converted = plain(value)
    if converted is value:
        raise TypeError(type(value).__name__)
    return converted
