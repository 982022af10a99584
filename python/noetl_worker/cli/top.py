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
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings, load_settings

__all__ = ["top"]

EXIT_SETTINGS: Final = 2
EXIT_NOBODY: Final = 3
_TIMEOUT_S: Final = 5.0


@with_setting_flags(shown=("metrics_bind", "debug_token"))
def top(
    flags: SettingFlags,
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS]...", help="HOST:PORT of workers; none: this machine, WORKER_METRICS_BIND."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once; so in a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a worker, once.")] = False,
    every_s: Annotated[float, typer.Option("--every", metavar="S", min=0.2, help="Seconds between looks.")] = 1.0,
) -> None:
    """A live view of running workers: what runs and for how long, slots, lag, gate
    of the control plane, outbox.

    Reads /debug/inflight of their probe ports: of this machine without more, of
    another one with NOETL_WORKER_DEBUG_TOKEN as those workers have it. Ctrl-C
    ends it.

    Exit codes: 0; 2 a setting or an address is wrong; 3 (with --once) no worker
    answered.
    """
    try:
        settings = load_settings(flags=flags)
        urls = _urls(settings, addresses or [])
    except SettingsError as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    is_once = once or as_json or not sys.stdout.isatty()
    try:
        work = _once(settings, urls, as_json=as_json) if is_once else _live(settings, urls, every_s)
        code = event_loop.run(work)
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


def _urls(settings: Settings, addresses: Sequence[str]) -> list[str]:
    if not addresses and not settings.metrics_bind:
        raise SettingsError("WORKER_METRICS_BIND", "", "the address of a worker's probes; or name an ADDRESS")
    host, _, port = settings.metrics_bind.rpartition(":")
    own = f"{'127.0.0.1' if host in ('0.0.0.0', '::', '') else host}:{port}"
    urls = []
    for address in addresses or [own]:
        bare = address.removeprefix("http://").rstrip("/")
        if not bare.rpartition(":")[2].isdigit():
            raise SettingsError("ADDRESS", address, "HOST:PORT of a worker's probes, for example 127.0.0.1:9090")
        urls.append(f"http://{bare}/debug/inflight")
    return urls


async def _once(settings: Settings, urls: Sequence[str], *, as_json: bool) -> int:
    from noetl_worker.cli.views.comparison import operator_console
    from noetl_worker.cli.views.top import view_of

    looks = await _look(settings, urls)
    if as_json:
        for look in looks:
            typer.echo(json.dumps(look, ensure_ascii=False))
    else:
        console = operator_console()
        for look in looks:
            console.print(view_of(look, height=None))
    return 0 if any("error" not in look for look in looks) else EXIT_NOBODY


async def _live(settings: Settings, urls: Sequence[str], every_s: float) -> int:
    from rich.console import Console, Group
    from rich.live import Live

    from noetl_worker.cli.views.top import view_of

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            looks = await _look(settings, urls)
            height = max(5, console.height // max(1, len(looks)) - 6)
            live.update(Group(*(view_of(look, height=height) for look in looks)), refresh=True)
            await asyncio.sleep(every_s)


async def _look(settings: Settings, urls: Sequence[str]) -> list[dict[str, Any]]:
    """What each answers; {"address", "error"} for one that does not."""
    import httpx

    token = settings.debug_token.reveal()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=_TIMEOUT_S) as client:
        answers = await asyncio.gather(*(_ask(client, url) for url in urls))
    return [look for answer in answers for look in _of_processes(answer)]


def _of_processes(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """A supervisor answers for all of its workers."""
    if "processes" not in answer:
        return [answer]
    return [{"address": answer["address"], **one} for one in answer["processes"]]


async def _ask(client: Any, url: str) -> dict[str, Any]:
    import httpx

    address = url.removeprefix("http://").partition("/")[0]
    try:
        answer = await client.get(url)
        said: Any = answer.json()
    except httpx.HTTPError as error:
        return {"address": address, "error": f"no answer: {str(error) or type(error).__name__}"}
    except ValueError:
        return {"address": address, "error": f"answers {answer.status_code} and no JSON: is it a worker's probe port?"}
    if answer.status_code != 200 or not isinstance(said, Mapping):
        told = said.get("error", "") if isinstance(said, Mapping) else ""
        return {"address": address, "error": f"answers {answer.status_code} {told}".strip()}
    return {"address": address, **said}
