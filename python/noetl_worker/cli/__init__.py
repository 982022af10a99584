"""The command line: `run` (the default), `dev`, `tools`, `config`, `nats`, `dead-letters`. One file each."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from noetl_worker import __version__
from noetl_worker.cli import config, dead_letters, dev, nats, run, tools
from noetl_worker.errors import EngineUnavailable, SettingsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="noetl-worker",
    help="Pulls NoETL commands from JetStream, runs one tool for each, reports what happened.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from noetl_worker.engine import ENGINE

        typer.echo(f"noetl-worker {__version__} (engine: {ENGINE}, Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _default(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show version and engine.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        context.invoke(run.run)


app.command("run")(run.run)
app.command("dev")(dev.dev)
app.command("tools")(tools.tools)
app.command("config")(config.config)
app.add_typer(nats.app, name="nats")
app.add_typer(dead_letters.app, name="dead-letters")


def main() -> None:
    """The console script."""
    try:
        app()
    except (SettingsError, EngineUnavailable) as error:  # the engine is chosen when it is imported, by any command
        typer.echo(f"noetl-worker: {error}", err=True)
        sys.exit(nats.EXIT_SETTINGS)
