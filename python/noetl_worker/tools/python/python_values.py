"""Values of user code: its input as the Python worker reads it, and what that worker lends it.

Read by path into the template process, as `python_template.py` is: the standard library only.
"""

from __future__ import annotations

import ast
import datetime
import json
from typing import Any


def read_again(value: Any) -> Any:
    """An input as the Python plane's own worker gives it: that plane prints an object or a list of a single tool's
    input before a worker has it. Nothing in it is rendered."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] + text[-1:] in ("{}", "[]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # it only looks like one
                continue
    return value.removesuffix("\n").removesuffix("\r")


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


LEGACY = {function.__name__: function for function in (get_val, deep_merge, now_utc, format_iso8601)}
