"""The command line `noetl-worker`, one file for each command.

This file runs the command that was typed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from noetl_worker.cli.system import EXIT_NOT_REACHED, EXIT_SETTINGS, redacted_text
from noetl_worker.errors import ControlPlaneError, JetStreamError, NoetlWorkerError
from noetl_worker.observability.terminal import say

_COMMANDS: Final = {
    "run": ("run:run", "Run the worker. The default, if no command is named."),
    "bridge": ("bridge:bridge", "Bring the commands of a control plane without NATS into JetStream."),
    "dev": ("dev:dev", "Run a playbook on this machine with nothing else running."),
    "test": ("playbook_tests:playbook_tests", "Run the tests beside playbooks."),
    "check": ("check:check", "Mistakes in playbooks, before anything runs."),
    "exec": ("exec_tool:exec_", "Run one tool once, without a server."),
    "tools": ("tools:tools", "The tool kinds of this installation, and what each takes."),
    "config": ("config:config", "The settings as the worker reads them."),
    "doctor": ("examine:doctor", "What would keep a worker with these settings from working."),
    "top": ("top:top", "A live view of running workers."),
    "why": ("why:why", "What became of a command."),
    "failures": ("failures:failures", "Executions that failed lately, by kind, error and step."),
    "report": ("report:report", "An execution of the control plane as one page."),
    "replay": ("replay:replay", "Run a command of the control plane here, and report nothing to it."),
    "completion": ("completion:completion", "The completion script of a shell."),
}
"""Commands of the command line, by name. Each value is (`module:function` that runs the command, its help line)."""
_USAGE: Final[Any] = typer.BadParameter.__base__
"""Base class of typer's errors for wrong flags and arguments. typer itself exports only the subclass BadParameter."""
_PROCESSES: Final = ("run", "bridge")
"""Commands that run as services. Their errors are logged as `worker_failed`; other commands print errors for people."""
_GROUPS: Final = {"nats": "nats", "dead-letters": "dead_letters", "packages": "packages"}
"""Module of each group of commands, by the group's name. The group `nats` has `ensure`, `pause` and `resume`."""


def _show_version(wanted: bool) -> None:
    if wanted:
        from noetl_worker.engine.chosen import version_line

        say(version_line())
        raise typer.Exit


def _default(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show version and engine.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        from noetl_worker.cli.run import run

        context.invoke(run)


def _exit_code_after(error: NoetlWorkerError, command: str) -> int:
    """Print the error that ended a command, and return the exit code for it. A service logs the error instead."""
    if command in _PROCESSES:
        from noetl_worker.observability.last_words import log_failure

        return log_failure(error)
    text = redacted_text(error) if isinstance(error, ControlPlaneError) else str(error)
    for line in text.splitlines():
        say(f"noetl-worker {command}: {line}", err=True)
    return EXIT_NOT_REACHED if isinstance(error, (ControlPlaneError, JetStreamError)) else EXIT_SETTINGS


def app_for(words: Sequence[str] = (), *, names_alone: bool = False) -> typer.Typer:
    """Return the command-line app for the typed words.

    If the first word is a command, the app has only this command, since loading all commands takes long. Otherwise
    (`--help`, an unknown word) the app has every command.

    Args:
        words: words typed after the program's name.
        names_alone: add only the commands' names, without loading the commands. That is enough for a shell that
            completes a command's name.
    """
    app = typer.Typer(
        name="noetl-worker",
        help="Pulls NoETL commands from JetStream, runs one tool for each, reports what happened.",
        no_args_is_help=False,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_default)
    names = {*words[:1]} & {*_COMMANDS, *_GROUPS}
    if not names and names_alone:
        for name in (*_COMMANDS, *_GROUPS):
            app.command(name)(_nothing)
        return app
    names = names or {*_COMMANDS, *_GROUPS}
    for name, (place, text) in _COMMANDS.items():
        if name in names:
            module, _, function = place.partition(":")
            app.command(name, short_help=text)(getattr(import_module(f"{__name__}.{module}"), function))
    for name, module in _GROUPS.items():
        if name in names:
            app.add_typer(import_module(f"{__name__}.{module}").app, name=name)
    return app


def _nothing() -> None:
    """Do nothing. This function stands in for each command while a shell completes the command's name."""


def main() -> None:
    """Run the command that was typed after `noetl-worker`, and exit with the command's exit code."""
    from noetl_worker.cli.completion import PROGRAM, answer_the_shell
    from noetl_worker.cli.plain_values import read_plainly

    typed = answer_the_shell()
    read_plainly()
    command = next(iter(sys.argv[1:]), "run")
    try:
        app = app_for(sys.argv[1:] if typed is None else typed, names_alone=typed is not None)
        sys.exit(app(prog_name=PROGRAM, standalone_mode=False) or 0)
    except _USAGE as error:
        where = error.ctx.command_path if error.ctx is not None else PROGRAM
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        if command in _PROCESSES:
            from noetl_worker.observability.last_words import log_end

            log_end(error.exit_code, "setting", error=message)
        else:
            say(f"{where}: {message}", err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
    except NoetlWorkerError as error:
        sys.exit(_exit_code_after(error, command))
