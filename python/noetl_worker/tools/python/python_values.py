"""Values of user code: what the Python worker lends it, and the JSON-plain form of its result.

Read by path into the template process, as `python_template.py` is: the standard library only.
"""

from __future__ import annotations

import ast
import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 200


def read_again(value: Any) -> Any:
    """An input as the Python plane's own worker gives it: that plane prints an object or a list of a single tool's
    input before a worker has it. Nothing in it is rendered."""
    if type(value) is not str:
        return value
    text = value.strip()
    if text[:1] + text[-1:] in ("{}", "[]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # it only looks like one
                continue
    return value.removesuffix("\n").removesuffix("\r")


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """JSON-plain form of a result, the rules of `noetl_worker.json_text.plain`; arrays and frames are lists.

    `above` has the containers that `value` is in: one that contains itself ends there.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, above)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if len(above) > MAX_DEPTH:
        return "[nested too deeply]"
    if id(value) in above:
        return "[circular]"
    within = (*above, id(value))
    if isinstance(value, Mapping):
        return {key_text(key): plain(item, within) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, within) for item in value]
    if isinstance(value, (set, frozenset)):  # in an order that is the same next time
        return sorted((plain(item, within) for item in value), key=lambda item: (type(item).__name__, sort_key(item)))
    return plain_object(value, within)


def sort_key(item: Any) -> Any:
    return item if isinstance(item, (int, float, str)) else str(item)


def plain_object(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat() if value == value else None  # the NaT of pandas
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, type):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name), within) for each in dataclasses.fields(value)}
    return converted(value, within)


def converted(value: Any, within: tuple[int, ...]) -> Any:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("M", "m") and hasattr(value, "astype"):  # `tolist` would give nanoseconds, a number
        return without_nat(value.astype(str).tolist())
    for method, arguments in (("tolist", ()), ("model_dump", ()), ("to_dict", ("records",))):
        convert = getattr(value, method, None)  # numpy and Series; pydantic; DataFrame
        if callable(convert) and (method != "to_dict" or hasattr(value, "columns")):
            made = convert(*arguments)
            if type(made) is not type(value):
                return plain(made, within)
            return plain(float(value), within) if kind == "f" else str(value)  # longdouble is its own list
    return str(value).encode("utf-8", "replace").decode()


def without_nat(texts: Any) -> Any:
    if isinstance(texts, list):
        return [without_nat(text) for text in texts]
    return None if texts == "NaT" else str(texts)


def key_text(key: Any) -> str:
    """The text of a key, as `json_text` writes it."""
    if isinstance(key, enum.Enum):
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
    return str(key).encode("utf-8", "replace").decode()


# ── what the Python worker lends ────────────────────────────────────────────────────────────────


def get_val(value: Any, keys: Any, default: Any = None) -> Any:
    """`value[keys[0]][keys[1]]...`, or `default` when there is no such thing."""
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return default
    return value


def deep_merge(below: Any, above: Any) -> Any:
    """Objects key by key, lists one after the other; of anything else, `above`."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {key: deep_merge(below[key], item) if key in below else item for key, item in above.items()}
        return {**below, **merged}
    return [*below, *above] if isinstance(below, list) and isinstance(above, list) else above


def now_utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def format_iso8601(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).isoformat()


def make_serializable(value: Any) -> Any:
    return plain(value)


LEGACY = {
    "get_val": get_val,
    "deep_merge": deep_merge,
    "now_utc": now_utc,
    "format_iso8601": format_iso8601,
    "make_serializable": make_serializable,
}
