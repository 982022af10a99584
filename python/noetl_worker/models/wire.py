"""Types of values on the wire, and small readers of them that all rooms use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeAlias

JsonValue: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with str keys."""

CommandId: TypeAlias = int | str


class Dialect(str, Enum):
    """The control plane that issued a command. It decides the form of every event."""

    PYTHON = "python"
    RUST = "rust"


def fields_of(value: object) -> dict[str, Any]:
    """Return `value` if it is an object, else an empty dict."""
    return value if isinstance(value, dict) else {}


def command_ids(known: Any) -> dict[str, object]:
    """Return the ids and step of a command or its notification, by which operators search the log.

    Args:
        known: an object with these attributes.
    """
    return {
        "execution_id": known.execution_id,
        "command_id": known.command_id,
        "event_id": known.event_id,
        "step": known.step,
    }


def context_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return `result.context` of a plane's event. It has the values that a worker sent, on both planes."""
    return fields_of(fields_of(event.get("result")).get("context"))


def read_events(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events in a plane's answer about an execution, or in a page of its event log."""
    return [event for event in answer.get("events") or () if isinstance(event, dict)]


def has_next_page(answer: Mapping[str, Any]) -> bool:
    """Return whether a plane has a further page of events after this answer."""
    return fields_of(answer.get("pagination")).get("has_next") is True


def with_scalars(value: JsonValue, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    """Return a JSON value with `change` applied to each text, number, bool and null in it, at any depth."""
    if isinstance(value, dict):
        return {key: with_scalars(item, change) for key, item in value.items()}
    return [with_scalars(item, change) for item in value] if isinstance(value, list) else change(value)


def is_larger(value: JsonValue, most: int) -> bool:
    """Return True if a JSON value has more than `most` characters, members of objects and items of lists."""
    waiting = [value]
    while waiting and most >= 0:
        item = waiting.pop()
        if isinstance(item, (str, dict, list)):
            most -= len(item)
            if most >= 0 and not isinstance(item, str):
                waiting += item.values() if isinstance(item, dict) else item
    return most < 0


def texts_in(value: JsonValue) -> Iterator[str]:
    """Yield every text in a JSON value, at any depth. Keys are not included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
