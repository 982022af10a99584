"""The words of the wire that everything uses."""

from __future__ import annotations

from collections.abc import Mapping
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


def context_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """`result.context` of a plane's event, where both planes keep what a worker sent."""
    return fields_of(fields_of(event.get("result")).get("context"))
