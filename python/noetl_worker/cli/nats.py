"""`noetl-worker nats`: stream and durable against the settings; a pause of the pool, and its end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_SETTINGS, parse_duration
from noetl_worker.observability.terminal import say
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings, load_settings

if TYPE_CHECKING:  # at run time only where it is used: nats-py alone takes a tenth of a second
    from noetl_worker.remote.jetstream.connection import Connection

EXIT_DIFFERS: Final = 5

app = typer.Typer(
    help="Stream and durable: compare them with the settings, make and change them, pause the pool.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("ensure")
@with_setting_flags(shown=("nats_url", "nats_consumer"))
def ensure(
    flags: SettingFlags,
    apply_: Annotated[
        bool, typer.Option("--apply", help="Make what is missing; change what can be changed in place.")
    ] = False,
    first: Annotated[
        int | None,
        typer.Option("--from", min=1, metavar="SEQUENCE", help="Where a durable that is made begins; else the oldest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the tables.")] = False,
) -> None:
    """Compare stream, durable and dead letters with the settings.

    Without --apply nothing is changed. With it nothing is deleted: what
    JetStream does not change in place is shown with what a new one would lose
    and the command that makes it. A durable belongs to all workers of its pool.
    What other filters, or --from, leave out is counted.
    Takes every flag of `run` (noetl-worker run --help lists them).

    Exit codes: 0 all is as wanted (with --apply: by now, or a worker runs on it
    all the same); 2 a setting is wrong; 3 no NATS or JetStream, or it refuses the
    change; 5 something differs or is missing (with --apply: no worker can run).
    """

    async def work(connection: Connection, settings: Settings) -> int:
        from noetl_worker.cli.views.comparison import ComparisonView
        from noetl_worker.remote.jetstream.consumer import apply, find
        from noetl_worker.remote.jetstream.passed_over import passed_over

        found, done, left_out = await find(connection.client, settings), [], None
        if first is not None and found.durable_info is not None:
            say(f"noetl-worker: --from: durable {found.durable} is there; name a new one: --nats-consumer", err=True)
            return EXIT_SETTINGS
        if apply_:
            done = await apply(connection.client, found, settings, first)
            before, found = found, await find(connection.client, settings)
            left_out = await passed_over(connection.client, before, found)
        view = ComparisonView(found, settings, done, is_applied=apply_, passed_over=left_out)
        view.print(as_json=as_json)
        return 0 if view.is_fine else EXIT_DIFFERS

    with_nats(work, flags, "noetl-worker nats ensure")


@app.command("pause")
@with_setting_flags(shown=("nats_url", "nats_consumer"))
def pause(
    flags: SettingFlags,
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 90s, 20m, 1h.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Have JetStream deliver nothing of the durable for a while, to no worker of
    its pool. What runs goes on; it ends by itself, or by `nats resume`.

    It takes nats-server 2.11. At the stream's max_age commands are lost: a
    pause that leaves the oldest of them less than 15 minutes is refused.

    Exit codes: 0; 2 a setting or --for is wrong, or too long; 3 no NATS or
    JetStream, or it cannot.
    """
    if not (for_s := parse_duration(for_)):
        say(f"noetl-worker: --for {for_}: a number with s, m, h or d, for example 20m", err=True)
        raise typer.Exit(EXIT_SETTINGS)
    _change_pause(flags, for_s, as_json=as_json)


@app.command("resume")
@with_setting_flags(shown=("nats_url", "nats_consumer"))
def resume(
    flags: SettingFlags,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """End the pause of the durable.

    Exit codes: 0, also when it was not paused; 2 a setting is wrong; 3 no NATS
    or JetStream, or it cannot.
    """
    _change_pause(flags, 0.0, as_json=as_json)


def _change_pause(flags: SettingFlags, for_s: float, *, as_json: bool) -> None:
    """Pause the durable for this time; 0 ends the pause."""

    async def work(connection: Connection, settings: Settings) -> int:
        from noetl_worker.remote.jetstream.consumer import find
        from noetl_worker.remote.jetstream.pause import PauseTooLong, resume, shown
        from noetl_worker.remote.jetstream.pause import pause as ask_for_it

        found = await find(connection.client, settings)
        try:
            now = await (ask_for_it(connection.client, found, for_s) if for_s else resume(connection.client, found))
        except PauseTooLong as error:
            say(f"noetl-worker: {error}", err=True)
            return EXIT_SETTINGS
        name = f"durable {found.durable} on stream {found.stream}"
        if as_json:
            shape = {"stream": found.stream, "durable": found.durable, "paused_s": now.left_s, "until": now.until}
            say(json.dumps(shape))
        elif now.left_s:
            say(f"{name} delivers nothing for {shown(now.left_s)}, until {now.until}; what runs goes on.")
            say("Before that: noetl-worker nats resume")
        else:
            say(f"{name} delivers.")
        return 0

    with_nats(work, flags, "noetl-worker nats pause")


def with_nats(work: Callable[[Connection, Settings], Awaitable[int]], flags: SettingFlags, name: str) -> None:
    """Run an operator's command with a connection. Return its exit code; a failure is one line on stderr."""

    from noetl_worker.cli.nats_connection import connected
    from noetl_worker.observability.logging import configure_logging

    async def run(settings: Settings) -> int:
        async with connected(settings, name) as connection:
            return await work(connection, settings)

    configure_logging("error", "auto")
    raise typer.Exit(event_loop.run(run(load_settings(flags=flags))))
