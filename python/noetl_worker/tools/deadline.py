"""Timeouts of a tool call: every spelling that playbooks use, as one number of seconds."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Mapping
from typing import Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools.contract import ToolContext

TIMEOUTS: Final = ("timeout", "timeout_seconds")
"""Names of a timeout field, at the top of a config and under its `spec`."""
_PARTS: Final = ("total", "connect", "read")
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|sec|secs|m|min|mins|h)?\s*")
_UNITS: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "secs": 1.0, "m": 60.0, "min": 60.0, "mins": 60.0}


def seconds(value: JsonValue, field: str, tool: str) -> float:
    """Convert 30, 1.5, "30", "30s", "500ms", "2m" or "1h" to seconds. Raise ConfigurationError for any other value; the
    error names `tool` and `field`."""
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        number = float(match[1]) * _UNITS.get(match[2], 3600.0)
    if not (0 < number < math.inf):
        problem = f"{field}={value!r} is not a time: give seconds above 0, or a text like 30s or 2m"
        raise ConfigurationError(problem, field=field, tool=tool)
    return number


def given_timeouts(raw_config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return name -> value for the timeouts that a tool's config sets. The names are `timeout`, `timeout_seconds`,
    `spec.timeout` and `spec.timeout_seconds`, as error texts show them."""
    spec = fields_of(raw_config.get("spec"))
    places = {name: raw_config.get(name) for name in TIMEOUTS} | {f"spec.{name}": spec.get(name) for name in TIMEOUTS}
    return {name: value for name, value in places.items() if value is not None}


def effective_timeout(kind: str, given: Mapping[str, JsonValue]) -> float | None:
    """Return the shortest timeout of a config. A timeout is a time, such as `30s`, or an object {"total": time}.

    Args:
        kind: the tool's kind, for the error's text.
        given: name -> value of each timeout in the config. A value that is still a template is skipped.

    Returns:
        Seconds; None if none is set.

    Raises:
        ConfigurationError: a timeout is not a time.
    """
    totals = {name: _total(kind, name, value) for name, value in given.items()}
    known = {name: value for name, value in totals.items() if value is not None and not has_template(value)}
    return min((seconds(value, name, kind) for name, value in known.items()), default=None)


def timeout_parts(kind: str, given: Mapping[str, JsonValue]) -> dict[str, float]:
    """Return the seconds that a tool's request may take to connect and to read. A timeout {"connect": 2, "read": "5s",
    "total": 30} gives {"connect_timeout": 2, "read_timeout": 5}."""
    parts: dict[str, float] = {}
    for one in given.values():
        for name in ("connect", "read"):
            if isinstance(one, Mapping) and one.get(name) is not None:
                parts.setdefault(f"{name}_timeout", seconds(one[name], f"timeout.{name}", kind))
    return parts


def _total(kind: str, field: str, value: JsonValue) -> JsonValue:
    if not isinstance(value, Mapping):
        return value
    odd = [name for name in value if name not in _PARTS]
    if odd:
        raise ConfigurationError(
            f"{field}.{odd[0]} is not supported; supported: {', '.join(_PARTS)}", field=f"{field}.{odd[0]}", tool=kind
        )
    return value.get("total")


def time_left(timeout_s: float | None, context: ToolContext) -> float | None:
    """Return the tool's own timeout, or the command's remaining time if that is shorter."""
    if timeout_s is None or context.timeout_s is None:
        return context.timeout_s if timeout_s is None else timeout_s
    return min(timeout_s, context.timeout_s)


async def in_time(call: Awaitable[JsonValue], timeout_s: float | None, late: JsonValue = None) -> ToolResult:
    """Await `call` for at most `timeout_s` seconds. Return the value of `call` as a successful result; a value that is
    a ToolResult is returned unchanged. If the time is over, return a timeout result with the data `late`."""
    try:
        given = await asyncio.wait_for(call, timeout_s)
        return given if isinstance(given, ToolResult) else ToolResult.success(given)
    except (asyncio.TimeoutError, TimeoutError):
        return ToolResult.timed_out(timeout_s or 0.0, data=late)
