"""`noetl-worker nats`: compare stream and durable with the settings, create and change them; pause and resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import parse_duration, run_quietly
from noetl_worker.errors import SettingsError
from noetl_worker.observability.terminal import duration, say, say_json
from noetl_worker.settings.settings import Settings, load_settings

if TYPE_CHECKING:  # at run time only where it is used: nats-py alone takes a tenth of a second
    from noetl_worker.remote.jetstream.connection import Connection

EXIT_DIFFERS: Final = 5

app = typer.Typer(
    help="Stream and durable: compare them with the settings, make and change them, pause the pool.",
    no_args_is_help=True,
)


@app.command("ensure")
@with_setting_flags(shown=("nats_url", "nats_consumer"))
def ensure(
    flags: SettingFlags,
    apply_: Annotated[
        bool, typer.Option("--apply", help="Create what is missing; change what can be changed in place.")
    ] = False,
    first: Annotated[
        int | None,
        typer.Option("--from", min=1, metavar="SEQUENCE", help="First message of a new durable. Default: the oldest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the tables.")] = False,
) -> None:
    """Compare stream, durable and dead letters with the settings.

    Without --apply nothing is changed. --apply creates what is missing, changes what
    JetStream can change in place, and deletes nothing. For any other field it shows
    the command that creates a new durable, and what would be lost. A durable belongs
    to all workers of its pool. If new filters or --from exclude waiting commands,
    their number is shown. Takes every flag of `run` (noetl-worker run --help lists them).

    Exit codes: 0 nothing differs (with --apply also: a worker can run in spite of
    what differs); 2 a setting is wrong; 3 no NATS or JetStream, or it refuses the
    change; 5 something differs or is missing (with --apply: no worker can run).
    """

    async def work(connection: Connection, settings: Settings) -> int:
        from noetl_worker.cli.views.comparison import ComparisonView
        from noetl_worker.remote.jetstream.consumer import apply, find
        from noetl_worker.remote.jetstream.skipped_commands import count_skipped

        found, done, left_out = await find(connection.client, settings), [], None
        if first is not None and found.durable_info is not None:
            text = f"durable {found.durable} exists, and --from needs a new one: name it with --nats-consumer"
            raise SettingsError("--from", str(first), text)
        if apply_:
            done = await apply(connection.client, found, settings, first)
            before, found = found, await find(connection.client, settings)
            left_out = await count_skipped(connection.client, before, found)
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
    """Stop JetStream from delivering commands of the durable to its pool for a while.
    Running commands go on. The pause ends by itself, or by `nats resume`.

    A pause needs nats-server 2.11. The stream deletes commands at its max_age. So a
    pause is refused if it would end less than 15 minutes before the oldest command
    is deleted.

    Exit codes: 0; 2 a setting is wrong, or --for is wrong or too long; 3 no NATS or
    JetStream, or it cannot pause.
    """
    _change_pause(flags, parse_duration("--for", for_, least_s=1.0), as_json=as_json)


@app.command("resume")
@with_setting_flags(shown=("nats_url", "nats_consumer"))
def resume(
    flags: SettingFlags,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """End the pause of the durable.

    Exit codes: 0, also when it was not paused; 2 a setting is wrong; 3 no NATS
    or JetStream, or it cannot resume.
    """
    _change_pause(flags, 0.0, as_json=as_json)


def _change_pause(flags: SettingFlags, for_s: float, *, as_json: bool) -> None:
    """Pause the durable for `for_s` seconds, or end its pause if `for_s` is 0. Print the durable's new state."""

    async def work(connection: Connection, settings: Settings) -> int:
        from noetl_worker.remote.jetstream.consumer import find
        from noetl_worker.remote.jetstream.pause import pause as ask_for_it
        from noetl_worker.remote.jetstream.pause import resume

        found = await find(connection.client, settings)
        now = await (ask_for_it(connection.client, found, for_s) if for_s else resume(connection.client, found))
        name = f"durable {found.durable} on stream {found.stream}"
        if as_json:
            say_json({"stream": found.stream, "durable": found.durable, "paused_s": now.left_s, "until": now.until})
        elif now.left_s:
            say(f"{name} delivers nothing for {duration(now.left_s)}, until {now.until}; running commands go on.")
            say("To end the pause earlier: noetl-worker nats resume")
        else:
            say(f"{name} delivers.")
        return 0

    with_nats(work, flags, "noetl-worker nats pause")


def with_nats(work: Callable[[Connection, Settings], Awaitable[int]], flags: SettingFlags, name: str) -> None:
    """Open a NATS connection, run `work` on it, and raise typer.Exit with the exit code that `work` returns.

    Args:
        work: body of a CLI command.
        name: name of the connection, which NATS shows to operators.
    """
    from noetl_worker.cli.nats_connection import connected

    async def run(settings: Settings) -> int:
        async with connected(settings, name) as connection:
            return await work(connection, settings)

    raise typer.Exit(run_quietly(run(load_settings(flags=flags))))
