"""Values for user code: its input, converted as NoETL's Python worker does, and the helper functions of that worker.

The template process (`python_template.py`), from which commands are forked, reads this file by path. So this file
imports only the standard library.
"""

from __future__ import annotations

import ast
import datetime
import json
from typing import Any


def read_again(value: Any) -> Any:
    """Return the object or list that an input string contains as text, as NoETL's Python worker does. The Python plane
    sends the objects and lists in the input of a single tool as strings. Templates in the string are not rendered. Any
    other string only loses a final line break."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] + text[-1:] in ("{}", "[]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # it only looks like an object or a list
                continue
    return value.removesuffix("\n").removesuffix("\r")


# ── helper functions of the Python worker ────────────────────────────────────────────────────────


def get_val(value: Any, keys: Any, default: Any = None) -> Any:
    """Return the nested value `value[keys[0]][keys[1]]...`, or `default` if the value does not exist."""
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return default
    return value


def deep_merge(below: Any, above: Any) -> Any:
    """Merge two objects key by key, or concatenate two lists. For any other values return `above`."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {key: deep_merge(below[key], item) if key in below else item for key, item in above.items()}
        return {**below, **merged}
    return [*below, *above] if isinstance(below, list) and isinstance(above, list) else above


def now_utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def format_iso8601(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).isoformat()


LEGACY = {function.__name__: function for function in (get_val, deep_merge, now_utc, format_iso8601)}
