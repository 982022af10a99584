"""The events that a worker posts: which keys there are, apart from the values that tools gave; what an end says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compat.real_plane_values import Stored

POSTED = ("command.started", "call.done", "call.error", "command.completed", "command.failed")
DATA = ("data", "error")
"""Below these keys is what a tool gave."""


def rust_end(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    """What a terminal event for the Rust plane said."""
    if name == "call.error":
        return {"status": name, "error": payload.get("error")}
    result = payload.get("result") or {}
    context = result.get("context") or {}
    found = {"status": result.get("status"), "value": context.get("data")}
    found |= {key: context[key] for key in ("error", "exit_code") if context.get(key) is not None}
    return found | ({"reference": True} if result.get("reference") else {})


def shapes(events: Sequence[Stored]) -> dict[str, list[str]]:
    """By kind of event the paths that the stored ones have, each with its type; columns of text with their value."""
    found: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.kind in POSTED:
            found[event.kind].update(_described(event))
    return {kind: sorted(paths) for kind, paths in found.items()}


def shape_differences(theirs: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`path: theirs | ours`, for the kinds of events that both have."""
    for kind in theirs.keys() & ours.keys():
        one, other = set(theirs[kind]), set(ours[kind])
        yield from (f'shape.{kind}.{path}: "there" | "<absent>"' for path in sorted(one - other))
        yield from (f'shape.{kind}.{path}: "<absent>" | "there"' for path in sorted(other - one))


def _described(event: Stored) -> Iterator[str]:
    yield f"node_type={event.node_type}"
    yield f"status={event.status}"
    yield f"error={type(event.error).__name__}"
    for name in ("result", "context", "meta"):
        yield from _paths(name, getattr(event, name))


def _paths(at: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value and at.rpartition(".")[2] not in DATA:
        for key, inner in value.items():
            yield from _paths(f"{at}.{key}", inner)
    else:
        yield f"{at} ({'any' if at.rpartition('.')[2] in DATA else type(value).__name__})"
