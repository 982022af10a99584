"""The words of the wire that everything uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeAlias

JsonValue: TypeAlias = Any
"""None, bool, int, float, str, list or dict with str keys: the only place where `Any` means JSON."""

CommandId: TypeAlias = int | str


class Dialect(str, Enum):
    """Which control plane issued the command; decides the form of every event."""

    PYTHON = "python"
    RUST = "rust"


def fields_of(value: object) -> dict[str, Any]:
    """Of an object; of anything else none."""
    return value if isinstance(value, dict) else {}


def ids_of(known: Any) -> dict[str, object]:
    """Of a command, in whichever form it is: what an operator searches the log for."""
    return {
        "execution_id": known.execution_id,
        "command_id": known.command_id,
        "event_id": known.event_id,
        "step": known.step,
    }


def context_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """`result.context` of a plane's event, where both planes keep what a worker sent."""
    return fields_of(fields_of(event.get("result")).get("context"))


def with_scalars(value: JsonValue, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    """A JSON value with what `change` makes of each text, number, bool and null in it, at any depth."""
    if isinstance(value, dict):
        return {key: with_scalars(item, change) for key, item in value.items()}
    return [with_scalars(item, change) for item in value] if isinstance(value, list) else change(value)


def texts_in(value: JsonValue) -> Iterator[str]:
    """Every text in a JSON value, at any depth; keys are none."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
