"""What an operation of the `nats` tool is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_worker.models.wire import JsonValue

if TYPE_CHECKING:
    from noetl_worker.tools.nats.nats import NatsConfig


class Operation(NamedTuple):
    """One operation, and the fields that it reads beside those of the connection."""

    call: Callable[[Any, NatsConfig], Awaitable[dict[str, JsonValue]]]
    """With a connected client."""
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
