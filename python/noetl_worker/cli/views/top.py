"""The view of one worker in `top`: lines about the worker, and a table of its commands, the longest-running first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column
from rich.text import Text

from noetl_worker.observability.terminal import duration, harmless, plain_table


def worker_view(look: Mapping[str, Any], *, height: int | None) -> RenderableType:
    """Return the display of one worker's state for `noetl-worker top`.

    Args:
        look: state of the worker, as /debug/inflight or the plane's registry gives it, or an error.
        height: largest number of commands to show; None: all.
    """
    address = str(look.get("address"))
    if "error" in look:
        return Group(Text(f"{address}: {harmless(str(look['error']))}", style="red"), Text(""))
    if "registered" in look:
        return Text(harmless(_registered(look["registered"], address)))
    worker: Mapping[str, Any] = look.get("worker") or {}
    state = Text()
    name = worker.get("worker_id", "(it starts)")
    state.append(harmless(f"{name} at {address}  "), style="bold")
    is_ready = bool(look.get("ready"))
    state.append(
        harmless(f"{'ready' if is_ready else 'NOT READY'}: {look.get('reason')}"), style="green" if is_ready else "red"
    )
    return Group(state, *(Text(harmless(line)) for line in _lines(look, worker)), _commands(look, height), Text(""))


def _registered(row: Mapping[str, Any], address: str) -> str:
    """Return a line about a worker that was not asked itself, from its entry `row` in the plane's registry."""
    labels = row.get("labels") or {}
    said = {
        "last heartbeat": row.get("heartbeat"),
        "slots": row.get("capacity"),
        "pool": labels.get("pool_name"),
        "version": labels.get("version"),
    }
    known = [f"{name} {value}" for name, value in said.items() if value]
    return f"{row.get('name')} at {address}  " + ", ".join([str(row.get("status")), *known])


def _lines(look: Mapping[str, Any], worker: Mapping[str, Any]) -> list[str]:
    slots, lag, outbox = (look.get(name) or {} for name in ("slots", "lag", "outbox"))
    gate = look.get("gate") or {}
    down = sorted(name for name, is_down in (gate.get("down") or {}).items() if is_down)
    waiting = sum((gate.get("waiting") or {}).values())
    oldest = duration(outbox.get("oldest_s") or 0)
    about = f"version {worker.get('version')}, engine {worker.get('engine')}, {worker.get('control_plane')} plane"
    return [
        f"{about} {worker.get('server_url')}, up {duration(worker.get('up_s') or 0)}",
        f"slots {_text(slots, 'used')} used, {_text(slots, 'limit')} allowed now, {_text(slots, 'size')} in all   "
        f"lag {_text(lag, 'waiting')} waiting, {_text(lag, 'in_flight')} in flight in the pool   "
        f"loop lag {look.get('loop_lag_s', 0):.2f} s",
        f"gate {'DOWN: ' + ', '.join(down) if down else 'open'}, {waiting:.0f} requests wait   "
        f"outbox {_text(outbox, 'rows')} sets, {_text(outbox, 'bytes')} bytes, oldest {oldest}",
    ]


def _commands(look: Mapping[str, Any], height: int | None) -> RenderableType:
    commands = sorted(look.get("commands") or (), key=lambda command: -(command.get("seconds") or 0))
    if not commands:
        return Text("nothing runs", style="dim")
    table = plain_table(
        Column("for", justify="right", no_wrap=True, min_width=6),
        Column("stage", no_wrap=True, min_width=9),
        Column("kind", no_wrap=True, min_width=8, max_width=14),
        Column("step", overflow="ellipsis", no_wrap=True, max_width=16),
        Column("deliveries", justify="right", no_wrap=True, min_width=10),
        Column("command", overflow="fold", min_width=20),
    )
    shown = commands if height is None else commands[:height]
    for command in shown:
        cells = (
            duration(command.get("seconds") or 0),
            command.get("stage"),
            command.get("kind") or "-",
            command.get("step") or "-",
            command.get("deliveries") or "-",
            command.get("command_id") or "-",
        )
        table.add_row(*(Text(harmless(str(cell))) for cell in cells))
    if len(shown) == len(commands):
        return table
    return Group(table, Text(f"... and {len(commands) - len(shown)} more", style="dim"))


def _text(fields: Mapping[str, Any], name: str) -> str:
    return f"{fields.get(name) or 0:.0f}"
