"""The class of an operation of the `nats` tool, and the parsing of payloads in an operation's result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.kinds.nats.nats_fields import NatsFields
from noetl_worker.tools.payload import parse_payloads


async def with_values(found: dict[str, Any], owner: object) -> dict[str, JsonValue]:
    """Parse the payloads (`data` and `value`) in the result of an operation, outside the event loop, and replace them
    in `found`. The memory of the parsed payloads is charged to the command `owner`."""
    places = [
        (part, name)
        for part in (found, *found.get("messages", ()), *found.get("entries", ()))
        for name in ("data", "value")
        if isinstance(part.get(name), bytes)
    ]
    values = await parse_payloads([part[name] for part, name in places], owner)
    for (part, name), value in zip(places, values, strict=True):
        part[name] = value
    return found


class Operation(NamedTuple):
    """An operation of the `nats` tool, such as `kv_get`, with the config fields that the operation reads."""

    call: Callable[[Any, NatsFields], Awaitable[dict[str, JsonValue]]]
    """Function that runs the operation with a connected client. Payloads in the returned dict are bytes; `with_values`
    parses these bytes."""
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
