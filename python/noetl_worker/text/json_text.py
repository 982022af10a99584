"""JSON in and out, through orjson where it is installed.

`loads` keeps 64-bit ids exact on both libraries. `dumps` always gives valid compact JSON: what JSON cannot say
(NaN, Decimal, datetime, bytes, sets, ints beyond 64 bits, lone surrogates) gets a defined form, since a result
must not be lost for one odd value. With and without orjson the values are the same; tests/unit/test_json_text.py
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
except ImportError:  # no wheel for this platform: slower, same answers
    orjson = None

__all__ = ["dumps", "embed", "escaped_size", "fits", "loads", "loads_exact", "loads_in_room", "memory_of", "plain"]

_MAX_UINT64: Final = 2**64 - 1
_MIN_INT64: Final = -(2**63)
"""What orjson, and so what a plane that reads with it or with serde, takes for a whole number."""
_MAX_INT_CHARS: Final = 20
_LONG_NUMBER: Final = b"0" * 19
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
"""With these a long number is found in a tenth of the time that a pattern takes: 0.8 ms a MB."""
_EMBEDDED_DEPTH: Final = 8
"""What is embedded is embedded by us, in an event: not deeper than this. Deeper it is parsed, which takes longer."""
_ESCAPE_CHARS: Final = 6
"""Of a UTF-16 unit: `\\u` and four digits."""
_MEMORY_OF: Final = {b"[": 250, b"{": 250, b":": 100, b",": 32, b'"': 28}
"""What each of these bytes stands for in CPython, about; the texts themselves are counted by their length. Lists and
objects count twice: the collector looks at each of them, and holds everything up meanwhile."""
_AT_ONCE: Final = 16 << 20
"""Bytes of a text, or of the values that it makes, that are read in one go: it takes 20 ms. More gives other threads
their turns."""
_MOST_GROWTH: Final = 95
"""Of a byte and what it makes: `[],` is the most."""
_SHORT: Final = _AT_ONCE // _MOST_GROWTH
"""Bytes of a text that is not looked at: whatever it makes."""
_LOOKED_AT: Final = 1 << 18
_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
_OPTIONS: Final = (
    0
    if orjson is None
    # dataclasses: orjson leaves out the fields that begin with `_`; times: it cuts a zone's seconds. Not its option for
    # keys that are no text: a float's text is another one with each version (1e-5, 0.00001).
    else orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)


def loads(data: bytes | str) -> JsonValue:
    """Parse one JSON text. A whole number beyond 64 bits is read as a float.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: never a library's error. Codes: `json_syntax`, with the position; `json_size`: its values would
            take over 512 MiB of memory.
    """
    try:
        if data[_SHORT : _SHORT + 1]:  # not by `len`: that is a call more for each text of each command
            return _large(data, _loads)
        return orjson.loads(data) if orjson is not None else _loads_exactly(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError("json_syntax", f"not JSON: {error}") from error


def loads_exact(data: bytes | str) -> JsonValue:
    """As `loads`, but a whole number beyond 64 bits is read as one: for what comes from outside and is passed on.

    `dumps` gives such a number as decimal text; a float would be another number.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: as `loads`.
    """
    try:
        return _large(data, _loads_with_digits) if data[_SHORT : _SHORT + 1] else _loads_with_digits(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError("json_syntax", f"not JSON: {error}") from error


async def loads_in_room(data: bytes, owner: object, read: Callable[[bytes], JsonValue] = loads_exact) -> JsonValue:
    """Parse what a server sent: where it is large off the loop, and once the worker has room for its values.

    Args:
        data: bytes in UTF-8.
        owner: whom the values are charged to, see `Room.take`.
        read: `loads` or `loads_exact`.

    Raises:
        DocumentError: as `loads`.
        ToolError: kind `resource`, from `Room.take`.
    """
    size = len(data)
    if size <= LARGE:
        return read(data)
    memory = await off_loop(size if size > _SHORT else 0, partial(memory_of, data))
    await room.take(memory - size, owner)
    return await off_loop(size, partial(read, data))


def memory_of(data: bytes | str) -> int:
    """Bytes of the values that a JSON text makes, about, its own beside them.

    Args:
        data: bytes in UTF-8, or text.

    Raises:
        DocumentError: `json_size`, before anything is made: it is over 512 MiB.
    """
    raw = data.encode() if isinstance(data, str) else data
    size = len(raw)
    if size * _MOST_GROWTH <= _AT_ONCE:
        return size * _MOST_GROWTH
    size += sum(map(_memory_of_signs, _parts(raw)))
    if size > _AT_ONCE:  # or it is text that looks like values
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


def _parts(data: bytes) -> Iterator[bytes]:
    """The text in pieces, no escape in two of them."""
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
    """The same without what stands in texts."""
    size, is_text = 0, 0
    for piece in _parts(raw):
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        size += _memory_of_signs(b"".join(parts[is_text::2])) + _MEMORY_OF[b'"'] * (len(parts) - 1)
        is_text ^= 1 - len(parts) % 2
    return size


def _loads_exactly(data: bytes | str, decoder: json.JSONDecoder | None = None) -> JsonValue:
    """The standard library, as strict as orjson: UTF-8 only, no half of a surrogate pair, no infinite number."""
    raw = data.encode() if isinstance(data, str) else bytes(data)
    value: JsonValue = (decoder or _decoder).decode(raw.decode())
    if b"\\u" in raw:
        json.dumps(value, ensure_ascii=False).encode()  # raises for half of a pair
    return value


def _read_int(text: str) -> int | float:
    if len(text) <= _MAX_INT_CHARS:
        value = int(text)
        if _MIN_INT64 <= value <= _MAX_UINT64:
            return value
    return read_float(text)


_decoder: Final = json.JSONDecoder(parse_int=_read_int, parse_float=read_float, parse_constant=refuse_constant)


def dumps(value: JsonValue) -> bytes:
    """Compact UTF-8 JSON.

    Args:
        value: any value; see `plain` for what is converted.
    """
    if orjson is not None:
        try:
            packed: bytes = orjson.dumps(value, default=_default, option=_OPTIONS)
            return packed
        except TypeError:  # an int beyond 64 bits, a lone surrogate, a key that is no text: the slow way handles them
            pass
    return _around_embedded(value, _EMBEDDED_DEPTH)


def escaped_size(data: bytes) -> int:
    """The length of the same compact JSON with nothing but printable ASCII in it, as `json.dumps` writes it.

    A number with an exponent is one character longer there (1e+16): not counted, an event has room for it.

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
    """Whether the escaped form of some JSON is small enough (`escaped_size`).

    Args:
        data: compact JSON in UTF-8.
        max_bytes: the most that the form may have.
    """
    return len(data) * _ESCAPE_CHARS <= max_bytes or (len(data) <= max_bytes and escaped_size(data) <= max_bytes)


class _Embedded:
    """What orjson's Fragment is, where there is no orjson."""

    __slots__ = ("contents",)

    def __init__(self, contents: bytes) -> None:
        self.contents = contents


def embed(body: bytes) -> Any:
    """A value that `dumps` writes as it is, without parsing it again.

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


def _around_embedded(value: Any, depth: int) -> bytes:
    """The standard library's text, joined around the bytes that are embedded in the uppermost levels."""
    if type(value) in TEXTS:
        return _embedded_bytes(value)
    if depth and isinstance(value, dict) and _has_embedded(value, depth):
        members = (_text(key_text(key)) + b":" + _around_embedded(item, depth - 1) for key, item in value.items())
        return b"{" + b",".join(members) + b"}"
    if depth and isinstance(value, list) and _has_embedded(value, depth):
        return b"[" + b",".join(_around_embedded(item, depth - 1) for item in value) + b"]"
    return _text(plain(value))


def _text(value: JsonValue) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _default(value: Any) -> JsonValue:
    converted = plain(value)
    if converted is value:
        raise TypeError(type(value).__name__)
    return converted
