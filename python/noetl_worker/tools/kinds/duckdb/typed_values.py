"""A lossless JSON form for the values of DuckDB's rows, between the process of a DuckDB and the worker.

A list is written as a list. A value without a JSON form is written as an object with one field, named like its type.
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
"""Python type or types, their name, function that makes the JSON form, function that reads it.

A datetime is a date too, so it comes first.
"""
_READERS: Final = {name: reader for _, name, _, reader in _FORMS}


def written(value: Any) -> Any:
    """Return a value in its JSON form. Raises TypeError for a type that DuckDB does not have."""
    kind = type(value)
    if kind in _AS_IT_IS or (kind is float and math.isfinite(value)) or (kind is int and abs(value) <= _MAX_INT64):
        return value
    if kind is list:
        return [written(item) for item in value]
    for known, name, form, _ in _FORMS:
        if isinstance(value, known):
            return {name: form(value)}
    raise TypeError(f"a value of DuckDB's is of type {kind.__name__}")


def read(value: Any) -> Any:
    """Return the value whose JSON form, made by `written`, is `value`.

    Raises:
        ToolError: `value` was not made by `written`. A DuckDB process is not trusted.
    """
    if isinstance(value, list):
        return [read(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        [(name, form)] = value.items()
        return _READERS[name](form)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ToolError("the DuckDB process sent a value of an unknown form: report it", kind="process") from error
