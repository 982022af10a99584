"""Stage 4: a claim's answer -> a Command: references resolved, JSON-string fields parsed, input bound.

Fields arrive as objects, as JSON text, or as a reference to the result store (wire.md 5.1); a task sequence's
`tool_config` is {"tasks": [...]} on one plane and a list on the other (5.2). Keys that only the worker reads
(`cases`, `input`, the loop's bookkeeping) are taken out here, so that a tool sees its own fields alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from noetl_worker import json_text
from noetl_worker.control_plane.client import Plane
from noetl_worker.errors import ConfigurationError, DocumentError
from noetl_worker.models import Command, Dialect, Envelope, JsonValue, LoopPosition
from noetl_worker.patience import until_it_passes

__all__ = ["bare_command", "hydrate", "is_reference"]

_REFERENCE_KINDS: Final = frozenset({"result_ref", "temp_ref"})
_MAX_TRIES: Final = 20
_MAX_HOPS: Final = 4
"""A reference may point to a reference; a longer chain is a loop."""


def is_reference(value: JsonValue) -> bool:
    """Whether a field was moved to the result store: {kind: result_ref | temp_ref, ref: ...}."""
    return isinstance(value, dict) and value.get("kind") in _REFERENCE_KINDS and isinstance(value.get("ref"), str)


def bare_command(body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane) -> Command:
    """Who the command is, without its context: enough to report on it, whatever the context turns out to be."""
    meta: Mapping[str, JsonValue] = body.get("meta") or {}
    return Command(
        execution_id=envelope.execution_id,
        event_id=envelope.event_id,
        command_id=_command_id(meta, envelope),
        step=str(body["node_name"]),
        kind=str(body["action"]),
        config={},
        input={},
        variables={},
        cases=(),
        meta=meta,
        server_url=plane.url,
        dialect=plane.dialect,
        attempt=_attempt(meta),
        loop=_loop(meta) if plane.dialect is Dialect.PYTHON else None,
        catalog_id=_text_or_none(meta.get("catalog_id")),
    )


async def hydrate(body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane) -> Command:
    """Make the command.

    Args:
        body: the claim's answer, checked by claim.py to have execution_id, node_name and action.

    Raises:
        ConfigurationError: a field has a form no plane sends; the text names it.
        ControlPlaneError: a reference cannot be resolved (may pass).
    """
    command = bare_command(body, envelope, plane)
    context = await _object(body.get("context"), "context", plane)
    config = await _config(context.get("tool_config"), plane)
    variables = await _object(context.get("render_context"), "render_context", plane)
    variables.setdefault("action", command.kind)
    variables.setdefault("node_name", command.step)
    return replace(
        command,
        config=config,
        input=await _input(context, config, plane),
        variables=variables,
        cases=_cases(context, config),
        catalog_id=command.catalog_id or _text_or_none(variables.get("catalog_id")),
    )


async def _resolved(value: JsonValue, name: str, plane: Plane) -> JsonValue:
    """References followed, JSON text parsed."""
    for _ in range(_MAX_HOPS):
        if is_reference(value):
            ref: str = value["ref"]
            value = await until_it_passes(name, partial(plane.resolve_result, ref), max_tries=_MAX_TRIES)
        elif isinstance(value, str) and value[:1] in ("{", "["):
            try:
                value = json_text.loads(value)
            except DocumentError as error:
                raise ConfigurationError(f"the command's {name} is text that is not JSON: {error}") from error
        else:
            return value
    raise ConfigurationError(f"the command's {name} is a reference to a reference, more than {_MAX_HOPS} deep")


async def _object(value: JsonValue, name: str, plane: Plane) -> dict[str, Any]:
    whole = await _resolved(value, name, plane)
    if whole is None:
        return {}
    if not isinstance(whole, dict):
        raise ConfigurationError(f"the command's {name} is {type(whole).__name__}, expected an object")
    return dict(whole)


async def _config(value: JsonValue, plane: Plane) -> dict[str, Any]:
    whole = await _resolved(value, "tool_config", plane)
    if whole is None:
        return {}
    if isinstance(whole, list):
        return {"tasks": whole}
    if not isinstance(whole, dict):
        raise ConfigurationError(f"the command's tool_config is {type(whole).__name__}, expected an object or a list")
    # Null place holders of the Python plane (`spec`, `output`) say nothing.
    return {key: item for key, item in whole.items() if item is not None}


async def _input(context: Mapping[str, JsonValue], config: dict[str, Any], plane: Plane) -> dict[str, Any]:
    """The step's input: `context.input`, else `args`; the tool's own input wins over it key by key.

    The loop's bookkeeping (`__loop_*`) is the plane's, not the playbook's.
    """
    merged: dict[str, Any] = {}
    for name in ("args", "input"):
        merged.update(await _object(context.get(name), name, plane))
    merged = {key: item for key, item in merged.items() if not key.startswith("__loop_")}
    for name in ("args", "input"):
        own = config.get(name)
        if isinstance(own, dict):
            merged.update(own)
            del config[name]
    return merged


def _cases(context: Mapping[str, JsonValue], config: dict[str, Any]) -> Sequence[JsonValue]:
    """`cases` of the context, else of the tool's config (as the recorded playbooks write them); or `case` there."""
    own = {name: config.pop(name, None) for name in ("cases", "case")}
    given = (where[name] for where in (context, own) for name in own if where.get(name) is not None)
    cases = next(given, None)
    return cases if isinstance(cases, list) else []


def _command_id(meta: Mapping[str, JsonValue], envelope: Envelope) -> int | str:
    """As the notification has it: the planes compare with what they sent (wire.md 2.2)."""
    command_id = envelope.command_id
    from_meta = meta.get("command_id")
    if isinstance(from_meta, int | str) and not isinstance(from_meta, bool) and str(from_meta) != str(command_id):
        return from_meta
    return command_id


def _attempt(meta: Mapping[str, JsonValue]) -> int:
    """`attempt` on the wire, `attempts` in the published worker's mind (wire.md T-29)."""
    value = meta.get("attempt", meta.get("attempts", 1))
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


def _loop(meta: Mapping[str, JsonValue]) -> LoopPosition | None:
    if "loop_event_id" not in meta and "__loop_epoch_id" not in meta:
        return None
    return LoopPosition(
        event_id=meta.get("loop_event_id"),
        iteration_index=meta.get("loop_iteration_index"),
        epoch_id=meta.get("__loop_epoch_id"),
    )


def _text_or_none(value: JsonValue) -> str | None:
    return None if value is None else str(value)
