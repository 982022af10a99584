"""`noetl-worker top`: show what running workers do at this moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeAlias

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_NOT_REACHED
from noetl_worker.errors import SettingsError
from noetl_worker.observability.terminal import safe_console, say_json
from noetl_worker.pipeline.outbox.directory import outbox_directory
from noetl_worker.process import event_loop
from noetl_worker.settings import values
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.worker.probe_addresses import addresses_here, ask_workers

_Look: TypeAlias = Callable[[], Awaitable[list[dict[str, Any]]]]


@with_setting_flags(shown=("metrics_bind", "debug_token", "outbox_dir"))
def top(
    flags: SettingFlags,
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS]...", help="HOST:PORT of workers; none: all workers of this machine."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show the workers once, and end. Default in a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a worker, once.")] = False,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="All workers of the durable, on any machine (NOETL_WORKER_FLEET).")
    ] = False,
    every_s: Annotated[float, typer.Option("--every", metavar="S", min=0.2, help="Seconds between updates.")] = 1.0,
) -> None:
    """Show running workers live: commands and their durations, slots, lag, requests held back from the plane, outbox.

    Reads /debug/inflight at the probe ports of the workers. A worker of another machine answers only
    if NOETL_WORKER_DEBUG_TOKEN is the same there as for this command. Without an address, the workers of this user
    that share NOETL_WORKER_OUTBOX_DIR are found. --fleet asks all workers of the durable over NATS, if
    NOETL_WORKER_FLEET=nats is set for the workers and for this command. Otherwise --fleet shows the registry of the
    control plane. Ctrl-C ends the command.

    Exit codes: 0; 2 a setting or an address is wrong; 3 (with --once) no worker answered.
    """
    if fleet:
        from noetl_worker.cli.fleet import fleet_states
    settings = load_settings(flags=flags)
    named = [_without_scheme(address) for address in addresses or []]
    is_once = once or as_json or not sys.stdout.isatty()
    try:
        look = partial(fleet_states, settings) if fleet else partial(_read_states, settings, named)
        code = event_loop.run(_once(look, as_json=as_json) if is_once else _live(look, every_s))
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


def _without_scheme(address: str) -> str:
    """Return an address that a user typed, as HOST:PORT without `http://`. Raise SettingsError if it is invalid."""
    import httpx

    bare = address.removeprefix("http://").rstrip("/")
    try:
        is_one = bool(values.bind(bare) and httpx.URL(f"http://{bare}").host)
    except (ValueError, httpx.InvalidURL):
        is_one = False
    if not is_one:
        raise SettingsError("ADDRESS", address, "give HOST:PORT of a worker's probes, for example 127.0.0.1:9090")
    return bare


async def _read_states(settings: Settings, named: Sequence[str]) -> list[dict[str, Any]]:
    """Ask workers for their state, at the addresses in `named`, or else all workers of this machine.

    If `named` is empty, workers that have ended are left out, and the debug token is not sent, since another program
    may listen at an ended worker's address.
    """
    addresses = named or addresses_here(settings.metrics_bind, outbox_directory(settings.outbox_dir))
    looks = await ask_workers(addresses, settings.debug_token.reveal() if named else "")
    there = [look for look in looks if not look.pop("is_gone", False) or named]
    if there:
        return there
    found = ", ".join(addresses) or "no address"
    return [{"address": "this machine", "error": f"no worker answers ({found}); name the ADDRESS of one"}]


async def _once(look_at_all: _Look, *, as_json: bool) -> int:
    from noetl_worker.cli.views.top import worker_view
    from noetl_worker.observability.terminal import operator_console

    looks = await look_at_all()
    if as_json:
        for look in looks:
            say_json(look)
    else:
        console = operator_console()
        for look in looks:
            console.print(worker_view(look, height=None))
    return 0 if any("error" not in look for look in looks) else EXIT_NOT_REACHED


async def _live(look_at_all: _Look, every_s: float) -> int:
    from rich.console import Group
    from rich.live import Live

    from noetl_worker.cli.views.top import worker_view

    console = safe_console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            looks = await look_at_all()
            height = max(5, console.height // max(1, len(looks)) - 6)
            live.update(Group(*(worker_view(look, height=height) for look in looks)), refresh=True)
            await asyncio.sleep(every_s)
