"""`noetl-worker failures`: show the executions that failed, grouped by kind, error and step."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_FAILED, parse_duration, redacted_text, run_quietly
from noetl_worker.errors import JetStreamError, NotificationError, ServerRefused
from noetl_worker.observability.terminal import say, say_json
from noetl_worker.settings.settings import Settings, load_settings

if TYPE_CHECKING:  # at run time only where they are used
    from noetl_worker.authoring.run_page.run import ExecutionRun
    from noetl_worker.remote.plane.client import Plane

_AT_ONCE: Final = 4
_SHOWN_IDS: Final = 3
_ERROR_CHARS: Final = 300
_MOST_MESSAGES: Final = 20_000
"""Largest number of messages that `failures` reads from the command stream, starting with the newest."""


@dataclass
class FailureGroup:
    """Executions that failed alike: the failed command has the same tool kind, step and error text in each.

    Ids in the error text may differ.
    """

    kind: str
    step: str
    error: str
    """Error text of the group's first execution. The other executions' error texts differ only in ids."""
    executions: list[str] = field(default_factory=list)


@dataclass
class FoundFailures:
    groups: list[FailureGroup]
    """Groups of failed executions, the largest first."""
    looked_at: int
    """Number of executions whose events were requested from the plane."""
    left_out: int
    """Number of older executions that were not requested, since the flag `--most` limits the number."""
    notes: list[str]
    """Lines for the user about executions that the plane refused to return."""


@with_setting_flags(shown=("nats_url", "server_url"))
def failures(
    flags: SettingFlags,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="90s, 20m, 1h: the stream keeps commands for an hour.")
    ] = "1h",
    most: Annotated[int, typer.Option("--most", min=1, help="Executions to ask for, the newest first.")] = 500,
    retry: Annotated[bool, typer.Option("--retry", help="Say how to start a failed execution anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the executions that failed lately, by kind, error and step, with their
    number and ids.

    No control plane lists its executions by time. So the command stream is read for
    executions that had a command in the given time, and the control plane is asked
    for the events of each execution. Nothing is changed.

    --retry says how to start an execution anew: neither the Python nor the Rust
    control plane has a route that runs an execution again.

    Exit codes: 0; 1 with --retry; 2 a setting is wrong; 3 NATS or the control
    plane cannot be reached.
    """
    seconds = parse_duration("--since", since)
    found = run_quietly(_look(load_settings(flags=flags), seconds, most))
    if as_json:
        say_json(asdict(found))
    else:
        _print(found, since)
    if retry:
        say(
            "noetl-worker failures: no control plane has a route that runs an execution again: start it anew, with the "
            "path and payload that `noetl-worker report ID` shows (POST /api/execute)",
            err=True,
        )
        raise typer.Exit(EXIT_FAILED)


async def _look(settings: Settings, seconds: float, most: int) -> FoundFailures:
    from noetl_worker.remote.plane.client import ControlPlaneClient
    from noetl_worker.remote.transport.opening import open_transport

    ids = await _executions(settings, seconds)
    async with ControlPlaneClient(open_transport(settings, max_connections=_AT_ONCE), settings) as client:
        plane, turns = await client.plane(""), asyncio.Semaphore(_AT_ONCE)
        notes: list[str] = []

        async def read(execution_id: int) -> ExecutionRun | None:
            async with turns:
                return await _read(plane, execution_id, notes)

        runs = await asyncio.gather(*(read(one) for one in ids[:most]))
    groups = _grouped([run for run in runs if run is not None])
    return FoundFailures(groups, min(most, len(ids)), max(0, len(ids) - most), notes)


async def _executions(settings: Settings, seconds: float) -> list[int]:
    """Return the ids of executions with a command published to the stream in the last `seconds`, the newest first."""
    from noetl_worker.cli.nats_connection import connected
    from noetl_worker.envelope import decode_notification
    from noetl_worker.remote.jetstream.consumer import find_stream
    from noetl_worker.remote.jetstream.message_search import search_newest

    oldest = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
    async with connected(settings, "noetl-worker failures") as connection:
        name, info = await find_stream(connection.client, settings)
        if info is None:
            raise JetStreamError(
                f"there is no stream {name}: nothing was published yet, or NATS_STREAM names the wrong stream"
            )
        stream = await search_newest(connection.client, name, lambda _: True, most=_MOST_MESSAGES)
    found: dict[int, None] = {}
    for message in stream.found:
        if message.stored_at[:19] < oldest.isoformat()[:19]:
            break
        try:
            found[decode_notification(message.data).execution_id] = None
        except NotificationError:  # a message that can never run: it becomes a dead letter
            continue
    return list(found)


async def _read(plane: Plane, execution_id: int, notes: list[str]) -> ExecutionRun | None:
    from noetl_worker.authoring.run_page.reading import read_run_from

    try:
        return await read_run_from(plane, execution_id)
    except ServerRefused as error:
        notes.append(f"execution {execution_id}: {redacted_text(error)}")
        return None


def _grouped(runs: Sequence[ExecutionRun]) -> list[FailureGroup]:
    """Return the failed executions, grouped by tool kind, step and error text of their failed commands.

    An execution that failed without a failed command is grouped by its own error.
    """
    from noetl_worker.authoring.run_page.run import CommandState
    from noetl_worker.observability.repeated_lines import replace_ids
    from noetl_worker.text.secrets.redaction import redact_text

    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for run in runs:
        causes: Mapping[tuple[str, str], str] = {
            (command.kind or run.steps[command.step].kind, command.step): command.error
            for command in run.commands
            if command.state is CommandState.FAILED
        }
        if not causes and run.status == "FAILED":
            causes = {("", ""): run.error}
        for (kind, step), text in causes.items():
            error = redact_text(" ".join(text.split())[:_ERROR_CHARS])
            group = groups.setdefault((kind, step, replace_ids(error)), FailureGroup(kind, step, error))
            group.executions.append(run.execution_id)
    return sorted(groups.values(), key=lambda group: -len(group.executions))


def _print(found: FoundFailures, since: str) -> None:
    from rich.table import Column
    from rich.text import Text

    from noetl_worker.observability.terminal import harmless, operator_console, plain_table

    console = operator_console()
    count = len({one for group in found.groups for one in group.executions})
    console.print(f"{count} of {found.looked_at} executions of the last {since} failed", style="bold")
    table = plain_table(
        Column("count", justify="right", no_wrap=True),
        Column("kind", no_wrap=True),
        Column("step", overflow="fold"),
        Column("error", overflow="fold", ratio=1),
        Column("executions", overflow="fold", min_width=20),
    )
    for group in found.groups:
        more = len(group.executions) - _SHOWN_IDS
        ids = " ".join(group.executions[:_SHOWN_IDS]) + (f" and {more} more (--json)" if more > 0 else "")
        cells = (str(len(group.executions)), group.kind or "-", group.step or "-", group.error or "-", ids)
        table.add_row(*(Text(harmless(cell)) for cell in cells))
    if found.groups:
        console.print(table)
    if found.left_out:
        found.notes.append(f"{found.left_out} older executions were not asked for (--most)")
    for note in found.notes:
        console.print(Text(harmless(note), style="yellow"), soft_wrap=True)
