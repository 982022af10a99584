"""A JSON encoding without loss for the values in DuckDB's rows. The DuckDB process encodes the values, the worker
decodes the values.

A list is encoded as a list. A value that JSON cannot hold becomes an object with one field. The field's name is the
type, as in `{"decimal": "1.50"}`.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any, Final

from noetl_worker.errors import ToolError

_AS_IT_IS: Final = frozenset({str, bool, type(None)})
_MAX_INT64: Final = 2**63 - 1
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_FORMS: Final[tuple[tuple[type | tuple[type, ...], str, Callable[[Any], Any], Callable[[Any], Any]], ...]] = (
    (int, "int", str, int),
    (float, "float", str, float),
    (decimal.Decimal, "decimal", str, decimal.Decimal),
    (datetime.datetime, "datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    (datetime.date, "date", datetime.date.isoformat, datetime.date.fromisoformat),
    (datetime.time, "time", datetime.time.isoformat, datetime.time.fromisoformat),
    (datetime.timedelta, "span", lambda value: value // _MICROSECOND, lambda value: value * _MICROSECOND),
    (uuid.UUID, "uuid", str, uuid.UUID),
    ((bytes, bytearray, memoryview), "bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode),
    (tuple, "tuple", lambda value: [written(item) for item in value], lambda value: tuple(map(read, value))),
    (
        dict,
        "object",
        lambda value: [[written(key), written(item)] for key, item in value.items()],
        lambda value: {read(key): read(item) for key, item in value},
    ),
)
"""Encodings of Python types: the type, the type's name in JSON, the function that encodes a value, the function that
decodes a value.

The first matching type is used. `datetime` is a subclass of `date`, so `datetime` comes first.
"""
_READERS: Final = {name: reader for _, name, _, reader in _FORMS}


def written(value: Any) -> Any:
    """Encode a value of a DuckDB row for JSON, so that `read` restores it exactly. Raise TypeError for a Python type
    that DuckDB does not return."""
    kind = type(value)
    if kind in _AS_IT_IS or (kind is float and math.isfinite(value)) or (kind is int and abs(value) <= _MAX_INT64):
        return value
    if kind is list:
        return [written(item) for item in value]
    for known, name, form, _ in _FORMS:
        if isinstance(value, known):
            return {name: form(value)}
    raise TypeError(f"DuckDB returned a value of the unexpected type {kind.__name__}")


def read(value: Any) -> Any:
    """Decode a value that `written` encoded.

    Raises:
        ToolError: `value` was not made by `written`. The worker checks this, because a DuckDB process is not trusted.
    """
    if isinstance(value, list):
        return [read(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        [(name, form)] = value.items()
        return _READERS[name](form)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        text = "the DuckDB process sent a value in an unknown encoding: report this bug"
        raise ToolError(text, kind="process") from error
