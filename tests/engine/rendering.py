"""How the vectors' templates are rendered, and the fixed metadata they assume (protocol/conditions.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from noetl_worker.models import JsonValue
from noetl_worker.text.templates import template

METADATA = {
    "execution_id": 7,
    "step": "s1",
    "server_url": "http://srv",
    "worker_id": "w1",
    "command_id": "c1",
}


def renderer(variables: Mapping[str, JsonValue], data: JsonValue) -> Callable[[JsonValue], JsonValue]:
    """Return a render function that sees variables, metadata (which wins) and the tool's data as `result`."""
    scope = {**variables, **METADATA, "result": data}
    return lambda value: template.render(value, scope)
