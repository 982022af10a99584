"""Types of the JSON values that planes and workers exchange, and small functions that read such values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeAlias

JsonValue: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with str keys."""

CommandId: TypeAlias = int | str


class Dialect(str, Enum):
    """The type of the control plane that issued a command: Python or Rust. The format of every event depends on this
    type."""

    PYTHON = "python"
    RUST = "rust"


def fields_of(value: object) -> dict[str, Any]:
    """Return `value` if it is a dict (a JSON object), else an empty dict."""
    return value if isinstance(value, dict) else {}


def command_ids(known: Any) -> dict[str, object]:
    """Return the ids and the step of a command or notification, for log lines. Operators search the log by these
    values.

    Args:
        known: a command or an envelope, with the attributes `execution_id`, `command_id`, `event_id` and `step`.
    """
    return {
        "execution_id": known.execution_id,
        "command_id": known.command_id,
        "event_id": known.event_id,
        "step": known.step,
    }


def context_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return `result.context` of an event. On both planes this object has the values that the worker sent in the
    event."""
    return fields_of(fields_of(event.get("result")).get("context"))


def read_events(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events in a plane's answer about an execution, or in a page of its event log."""
    return [event for event in answer.get("events") or () if isinstance(event, dict)]


def has_next_page(answer: Mapping[str, Any]) -> bool:
    """Return True if `answer` is one page of events, and the plane has a further page."""
    return fields_of(answer.get("pagination")).get("has_next") is True


def with_scalars(value: JsonValue, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    """Return a JSON value with `change` applied to each string, number, bool and null in the value, at any depth."""
    if isinstance(value, dict):
        return {key: with_scalars(item, change) for key, item in value.items()}
    return [with_scalars(item, change) for item in value] if isinstance(value, list) else change(value)


def is_larger(value: JsonValue, most: int) -> bool:
    """Return True if a JSON value is larger than `most`. The size of a value is the number of characters in its
    strings, plus the number of its object members and list items."""
    waiting = [value]
    while waiting and most >= 0:
        item = waiting.pop()
        if isinstance(item, (str, dict, list)):
            most -= len(item)
            if most >= 0 and not isinstance(item, str):
                waiting += item.values() if isinstance(item, dict) else item
    return most < 0


def texts_in(value: JsonValue) -> Iterator[str]:
    """Yield every string in a JSON value, at any depth. Keys are not included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
