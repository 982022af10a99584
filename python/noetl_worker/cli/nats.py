"""`noetl-worker nats ensure`: stream and durable against the settings, and what it takes to make them agree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.errors import EngineUnavailable, JetStreamError, SettingsError
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings, load_settings

if TYPE_CHECKING:  # at run time only where it is used: nats-py alone takes a tenth of a second
    from noetl_worker.jetstream.connection import Connection

__all__ = ["EXIT_DIFFERS", "EXIT_NATS", "EXIT_SETTINGS", "app", "with_nats"]

EXIT_SETTINGS: Final = 2
EXIT_NATS: Final = 3
EXIT_DIFFERS: Final = 5

app = typer.Typer(
    help="Stream and durable: compare them with the settings, make and change them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Stream and durable: compare them with the settings, make and change them."""


@app.command("ensure")
@with_setting_flags(shown=("nats_url",))
def ensure(
    flags: SettingFlags,
    apply_: Annotated[
        bool, typer.Option("--apply", help="Make what is missing; change what can be changed in place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the tables.")] = False,
) -> None:
    """Compare stream, durable and dead letters with the settings.

    Without --apply nothing is changed. With it nothing is deleted: what
    JetStream does not change in place is shown with what a new one would lose
    and the command that makes it. A durable belongs to all workers of its pool.
    Takes every flag of `run` (noetl-worker run --help lists them).

    Exit codes: 0 all is as wanted (with --apply: by now); 2 a setting is wrong;
    3 no NATS or JetStream, or it refuses the change; 5 something differs or is
    missing.
    """

    async def work(connection: Connection, settings: Settings) -> int:
        from noetl_worker.cli.views.comparison import ComparisonView
        from noetl_worker.jetstream.consumer import apply, find

        found, done = await find(connection.client, settings), []
        if apply_:
            done = await apply(connection.client, found, settings)
            found = await find(connection.client, settings)
        view = ComparisonView(found, settings, done)
        view.print(as_json=as_json)
        return 0 if view.is_as_wanted else EXIT_DIFFERS

    with_nats(work, flags, "noetl-worker nats ensure")


def with_nats(work: Callable[[Connection, Settings], Awaitable[int]], flags: SettingFlags, name: str) -> None:
    """Run an operator's command with a connection; its exit code, or one line on stderr about what is in its way."""

    async def connected(settings: Settings) -> int:
        from noetl_worker.jetstream.connection import connect

        connection = await connect(settings, name, attempts=1)
        try:
            return await work(connection, settings)
        finally:
            await connection.close()

    from noetl_worker.observability.logging import configure_logging

    configure_logging("error", "auto")
    try:
        code = event_loop.run(connected(load_settings(flags=flags)))
    except (SettingsError, EngineUnavailable) as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    except JetStreamError as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(EXIT_NATS) from None
    raise typer.Exit(code)
