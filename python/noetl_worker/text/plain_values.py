"""The conversion of any value to JSON values, for the JSON that the worker writes and for results of `python` steps.

A command's process, which does not have this package, loads this file by its path (`tools/python/python_command.py`).
So it uses only the standard library and runs on Python 3.9.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import math
import re
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

MAX_DEPTH = 254
"""Largest depth of nested containers that `plain` converts, the same as orjson's limit. A deeper container is replaced
by a text."""
_HALF_OF_PAIR = re.compile("[\ud800-\udfff]")
TEXTS: dict[type, Callable[[Any], Any]] = {}
"""Table of types whose objects wrap JSON text. For each type, the table has the function that parses the text in such
an object. `json_text.py` adds the type of the objects that its function `embed` makes."""


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return a value converted to plain JSON values.

    NaN and infinities -> null; Decimal and UUID -> exact text; date and time -> ISO 8601; bytes -> base64 text; set ->
    sorted list; ints beyond 64 bits -> decimal text (up to 2**64-1 they are numbers); Enum -> its value; dataclass,
    pydantic model -> object; numpy and pandas -> number, list or list of rows; numpy and pandas times -> ISO 8601 text
    in the unit of the array; NaT -> null; other objects -> str().

    Args:
        value: any value.
        above: ids of the containers around `value`. A container whose id is among them contains itself.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, above)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return _whole(value)
    if len(above) >= MAX_DEPTH:
        return "[nested too deeply]"
    if id(value) in above:
        return "[circular]"
    within = (*above, id(value))
    if isinstance(value, Mapping):
        members: dict[str, Any] = {}
        for key, item in value.items():  # loops, because a comprehension would be one more stack frame per level
            members[key_text(key)] = plain(item, within)
        return members
    if isinstance(value, (list, tuple)):
        elements: list[Any] = []
        for item in value:
            elements.append(plain(item, within))  # noqa: PERF401
        return elements
    return _plain_object(value, within)


def key_text(key: Any) -> str:
    """Return a key as text: a number as Python prints it, null, true, false, a time in ISO 8601."""
    if isinstance(key, str):
        return _whole(key)
    if isinstance(key, Enum):
        return key_text(key.value)
    if key is None or (isinstance(key, float) and not math.isfinite(key)):
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(int(key))
    if isinstance(key, float):
        return repr(float(key))
    if isinstance(key, (datetime.datetime, datetime.date, datetime.time)):
        return key.isoformat()
    if type(key).__module__ == "numpy" and isinstance(number := plain(key), (bool, int, float)):
        return key_text(number)
    return _whole(str(key))


def _whole(text: str) -> str:
    """Return a text with U+0000 in place of each half of a surrogate pair. `null_characters.py` later finds the U+0000
    and tells the user."""
    try:
        return text.encode().decode()
    except UnicodeEncodeError:
        return _HALF_OF_PAIR.sub("\0", text)


def _plain_object(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, (set, frozenset)):  # sorted, so that the order is the same each time
        items = [plain(item, within) for item in value]
        return sorted(items, key=lambda item: (type(item).__name__, _sort_key(item)))
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat() if value == value else None  # the NaT of pandas is not equal to itself
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, (decimal.Decimal, uuid.UUID, type)):
        return str(value)
    if type(value) in TEXTS:
        return TEXTS[type(value)](value)
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name), within) for each in dataclasses.fields(value)}
    return _converted(value, within)


def _sort_key(item: Any) -> Any:
    return item if isinstance(item, (int, float, str)) else str(item)


def _converted(value: Any, within: tuple[int, ...]) -> Any:
    """Convert values of numpy, pandas and pydantic by their methods, so that no library has to be imported."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("M", "m") and hasattr(value, "astype"):  # `tolist` would give a number of nanoseconds
        return _replace_nat(value.astype(str).tolist())
    for method, arguments in (("tolist", ()), ("model_dump", ()), ("to_dict", ("records",))):
        convert = getattr(value, method, None)
        if callable(convert) and (method != "to_dict" or hasattr(value, "columns")):
            made = convert(*arguments)
            if type(made) is not type(value):
                return plain(made, within)
            return plain(float(value), within) if kind == "f" else str(value)  # `tolist` of a longdouble is itself
    return _whole(str(value))


def _replace_nat(texts: Any) -> Any:
    if isinstance(texts, list):
        return [_replace_nat(text) for text in texts]
    return None if texts == "NaT" else str(texts)
