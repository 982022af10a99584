"""`noetl-worker why ID`: say what became of a command, or of an execution."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_UNKNOWN, run_quietly
from noetl_worker.errors import SettingsError
from noetl_worker.observability.terminal import say_json

if TYPE_CHECKING:
    from noetl_worker.cli.diagnosis import Story


@with_setting_flags(shown=("nats_url", "server_url", "outbox_dir"))
def why(
    flags: SettingFlags,
    command_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of a command or an execution, of `dev` too; `last` is the newest run of `dev`."
        ),
    ],
    execution: Annotated[
        int | None, typer.Option("--execution", min=1, help="Id of the command's execution, if no source names it.")
    ] = None,
    messages: Annotated[
        int, typer.Option("--messages", min=1, help="Number of messages to search, the newest first.")
    ] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what became of a command, or how each command of an execution ended.

    For a command it asks NATS (its message, the position of the durable, its dead
    letters), the outbox of this machine, and the control plane (who claimed it, when
    it started, how it ended). For a stored run of `dev` it asks only that run.

    Nothing is changed. A source that cannot be asked is named. On the Rust plane a
    command's id begins with the execution's id. For the Python plane, `why` finds the
    execution in the message, the dead letter or the outbox; else give --execution.

    Exit codes: 0 a source knows the ID; 2 a setting is wrong; 5 no source knows it.
    """
    if not command_id.strip():
        raise SettingsError("ID", command_id, "give the id of a command or an execution")
    story = run_quietly(_ask(flags, command_id.strip(), execution, messages))
    if as_json:
        say_json(asdict(story))
    else:
        _print(story)
    raise typer.Exit(0 if story.is_known else EXIT_UNKNOWN)


async def _ask(flags: SettingFlags, name: str, execution: int | None, messages: int) -> Story:
    from noetl_worker.cli.diagnosis import Diagnosis
    from noetl_worker.cli.stored_run import settings_to_ask, stored_run_plane

    async with stored_run_plane(name) as stored:
        settings = settings_to_ask(flags, stored)
        if stored and stored.command is not None:
            execution = stored.command.execution_id
        diagnosis = Diagnosis(settings, stored.name if stored else name, execution_id=execution, most=messages)
        story = await (diagnosis.ask_plane_alone(is_interrupted=stored.is_interrupted) if stored else diagnosis.ask())
        if not (stored or story.is_known):
            story.conclusion = f"no stored run of dev has the id {name}, and {story.conclusion}"
        return story


def _print(story: Story) -> None:
    from rich.table import Column
    from rich.text import Text

    from noetl_worker.observability.terminal import harmless, operator_console, plain_table

    console = operator_console()
    console.print(Text(harmless(story.conclusion), style="bold"), soft_wrap=True)
    console.print()
    table = plain_table(
        Column("knows", no_wrap=True),
        Column("when", overflow="fold"),
        Column("what", overflow="fold", ratio=1),
    )
    for fact in story.facts:
        table.add_row(fact.source, fact.at[:23] or "now", Text(harmless(fact.text)))
    if story.facts:
        console.print(table)
    for text in story.unknown:
        console.print(Text(harmless(f"not known: {text}"), style="yellow"), soft_wrap=True)
