"""The command line, one file a command; `run` is the default."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from noetl_worker import __version__
from noetl_worker.cli import (
    completion,
    config,
    dead_letters,
    dev,
    doctor,
    exec_tool,
    nats,
    replay,
    run,
    tools,
    top,
    why,
)
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


app.command("run", short_help="Run the worker; so without a command.")(run.run)
app.command("dev", short_help="Run a playbook on this machine with nothing else running.")(dev.dev)
app.command("exec", short_help="Run one tool once, without a server.")(exec_tool.exec_)
app.command("tools", short_help="The tool kinds of this installation, and what each takes.")(tools.tools)
app.command("config", short_help="The settings as the worker reads them.")(config.config)
app.command("doctor", short_help="What would keep a worker with these settings from working.")(doctor.doctor)
app.command("top", short_help="A live view of running workers.")(top.top)
app.command("why", short_help="What became of a command.")(why.why)
app.command("replay", short_help="Run a command of the control plane here, and report nothing to it.")(replay.replay)
app.command("completion", short_help="The completion script of a shell.")(completion.completion)
app.add_typer(nats.app, name="nats")
app.add_typer(dead_letters.app, name="dead-letters")


def main() -> None:
    """The console script."""
    completion.answer_the_shell()
    try:
        app(prog_name=completion.PROGRAM)
    except (SettingsError, EngineUnavailable) as error:  # the engine is chosen when it is imported, by any command
        typer.echo(f"noetl-worker: {error}", err=True)
        sys.exit(nats.EXIT_SETTINGS)
