"""`noetl-worker top`: what running workers do at this moment."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.errors import SettingsError
from noetl_worker.outbox.directory import directory_of
from noetl_worker.outbox.probe_addresses import addresses_here, looks_in
from noetl_worker.process import event_loop
from noetl_worker.settings import values
from noetl_worker.settings.settings import Settings, load_settings

EXIT_NOBODY: Final = 3
_TIMEOUT_S: Final = 5.0


@with_setting_flags(shown=("metrics_bind", "debug_token", "outbox_dir"))
def top(
    flags: SettingFlags,
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS]...", help="HOST:PORT of workers; none: all of this machine."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once; so in a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a worker, once.")] = False,
    every_s: Annotated[float, typer.Option("--every", metavar="S", min=0.2, help="Seconds between looks.")] = 1.0,
) -> None:
    """A live view of running workers: what runs and for how long, slots, lag, gate
    of the control plane, outbox.

    Reads /debug/inflight of their probe ports: of this machine without more, of
    another one with NOETL_WORKER_DEBUG_TOKEN as those workers have it. Without
    an address it finds those of this user that share NOETL_WORKER_OUTBOX_DIR.
    Ctrl-C ends it.

    Exit codes: 0; 2 a setting or an address is wrong; 3 (with --once) no worker
    answered.
    """
    settings = load_settings(flags=flags)
    for address in addresses or []:
        _require_address(address)
    is_once = once or as_json or not sys.stdout.isatty()
    try:
        asked = _Asked(settings, addresses or [])
        work = _once(asked, as_json=as_json) if is_once else _live(asked, every_s)
        code = event_loop.run(work)
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


def _require_address(address: str) -> None:
    import httpx

    bare = _bare(address)
    try:
        is_one = bool(values.bind(bare) and httpx.URL(f"http://{bare}").host)
    except (ValueError, httpx.InvalidURL):
        is_one = False
    if not is_one:
        raise SettingsError("ADDRESS", address, "HOST:PORT of a worker's probes, for example 127.0.0.1:9090")


def _bare(address: str) -> str:
    return address.removeprefix("http://").rstrip("/")


class _Asked:
    """The workers that are looked at; without names those of this machine, looked for each time anew."""

    def __init__(self, settings: Settings, named: Sequence[str]) -> None:
        token = settings.debug_token.reveal()
        self.headers: Final = {"authorization": f"Bearer {token}"} if token else {}
        self._settings = settings
        self._named = [_bare(address) for address in named]

    async def look(self) -> list[dict[str, Any]]:
        """What each answers; {"address", "error"} for one that does not. One that was found and is gone is left out."""
        import httpx

        addresses = self._named or addresses_here(self._settings.metrics_bind, directory_of(self._settings.outbox_dir))
        async with httpx.AsyncClient(headers=self.headers, trust_env=False, timeout=_TIMEOUT_S) as client:
            answers = await asyncio.gather(*(_ask(client, address) for address in addresses))
        there = [answer for answer in answers if not answer.pop("is_gone", False) or self._named]
        if not there:
            found = ", ".join(addresses) or "no address"
            there = [{"address": "this machine", "error": f"no worker answers ({found}); name the ADDRESS of one"}]
        return [{"address": answer["address"], **look} for answer in there for look in looks_in(answer)]


async def _once(asked: _Asked, *, as_json: bool) -> int:
    from noetl_worker.cli.views.terminal import operator_console
    from noetl_worker.cli.views.top import view_of

    looks = await asked.look()
    if as_json:
        for look in looks:
            typer.echo(json.dumps(look, ensure_ascii=False))
    else:
        console = operator_console()
        for look in looks:
            console.print(view_of(look, height=None))
    return 0 if any("error" not in look for look in looks) else EXIT_NOBODY


async def _live(asked: _Asked, every_s: float) -> int:
    from rich.console import Console, Group
    from rich.live import Live

    from noetl_worker.cli.views.top import view_of

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            looks = await asked.look()
            height = max(5, console.height // max(1, len(looks)) - 6)
            live.update(Group(*(view_of(look, height=height) for look in looks)), refresh=True)
            await asyncio.sleep(every_s)


async def _ask(client: Any, address: str) -> dict[str, Any]:
    import httpx

    try:
        answer = await client.get(f"http://{address}/debug/inflight")
        body: Any = answer.json()
    except httpx.HTTPError as error:
        is_gone = isinstance(error, httpx.ConnectError)
        return {"address": address, "error": f"no answer: {str(error) or type(error).__name__}", "is_gone": is_gone}
    except ValueError:
        return {"address": address, "error": f"answers {answer.status_code} and no JSON: is it a worker's probe port?"}
    if answer.status_code != 200 or not isinstance(body, Mapping):
        reason = body.get("error", "") if isinstance(body, Mapping) else ""
        return {"address": address, "error": f"answers {answer.status_code} {reason}".strip()}
    return {"address": address, **body}
