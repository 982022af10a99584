"""JSON in and out, through orjson where it is installed.

`loads` keeps 64-bit ids exact on both libraries. `dumps` always gives valid compact JSON: what JSON cannot say
(NaN, Decimal, datetime, bytes, sets, ints beyond 64 bits, lone surrogates) gets a defined form, since a result
must not be lost for one odd value.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import uuid
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.models import JsonValue

orjson: Any
try:
    import orjson
except ImportError:  # no wheel for this platform: slower, same answers
    orjson = None

__all__ = ["dumps", "embed", "loads", "plain"]

_MAX_INT64: Final = 2**63 - 1
_MIN_INT64: Final = -(2**63)
_MAX_DEPTH: Final = 200


def loads(data: bytes | str) -> JsonValue:
    """Parse one JSON text. Raises DocumentError (code json_syntax) with the position, never a library's error."""
    try:
        if orjson is not None:
            return orjson.loads(data)
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentError("json_syntax", f"not JSON: {error}") from error


def _refuse_constant(text: str) -> JsonValue:
    raise ValueError(f"{text} is not JSON")


def dumps(value: JsonValue) -> bytes:
    """Compact UTF-8 JSON of any value; see `plain` for what is converted."""
    if orjson is not None:
        try:
            packed: bytes = orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)
            return packed
        except TypeError:  # an int beyond 64 bits, a lone surrogate, a subclass: the slow way handles them
            pass
    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False).encode()


def embed(body: bytes) -> Any:
    """A value that `dumps` writes as these JSON bytes, without parsing them again where orjson is installed."""
    return orjson.Fragment(body) if orjson is not None else json.loads(body)


def _default(value: Any) -> JsonValue:
    converted = plain(value)
    if converted is value:
        raise TypeError(type(value).__name__)
    return converted


def plain(value: Any, depth: int = 0) -> JsonValue:
    """The JSON-plain form of `value`.

    NaN and infinities -> null; Decimal -> exact string; date and time -> ISO 8601; bytes -> base64 text;
    set -> list; ints beyond 64 bits -> decimal string (the planes read 64 bits); other objects -> str().
    """
    if depth > _MAX_DEPTH:
        return "[nested too deeply]"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, int):
        return int(value) if _MIN_INT64 <= value <= _MAX_INT64 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> JsonValue:
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    if orjson is not None and isinstance(value, orjson.Fragment):
        return json.loads(value.contents)
    return str(value)
