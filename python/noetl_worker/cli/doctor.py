"""`noetl-worker doctor`: what would keep a worker with these settings from working, and the line that fixes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Column, Table
from rich.text import Text

from noetl_worker import __version__
from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.errors import SettingsError
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import load_settings

if TYPE_CHECKING:
    from noetl_worker.doctor import Finding

__all__ = ["doctor"]

EXIT_SETTINGS: Final = 2
EXIT_WRONG: Final = 5
_TABLE_WIDTH: Final = 150
"""From this width on a column has room for the longest subject."""
_MARKS: Final = {"fine": ("ok", ""), "warning": ("warn", "yellow"), "wrong": ("WRONG", "red"), "unknown": ("?", "cyan")}
"""State of a finding -> its mark, and in which colour."""


@with_setting_flags(shown=("nats_url", "server_url"))
def doctor(
    flags: SettingFlags,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Only what is not fine.")] = False,
) -> None:
    """Look at everything that a worker with these settings needs: NATS and its
    permissions, stream and durable, the control plane and its version, clocks,
    certificates, and this machine.

    Nothing is changed, made or claimed. Takes every flag of `run` (noetl-worker
    run --help lists them).

    Exit codes: 0 nothing is wrong (there may be warnings); 2 a setting is wrong;
    5 a worker would not start, or not get, run or report its commands.
    """
    from noetl_worker.observability.logging import configure_logging

    configure_logging("error", "auto")
    try:
        settings = load_settings(flags=flags)
        from noetl_worker.doctor import State, examine

        findings = event_loop.run(examine(settings))
    except SettingsError as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    is_wrong = any(finding.state is State.WRONG for finding in findings)
    if as_json:
        shown: dict[str, Any] = {"ok": not is_wrong, "version": __version__}
        typer.echo(json.dumps({**shown, "checks": [finding.as_json() for finding in findings]}, ensure_ascii=False))
    else:
        _print(findings, brief=brief)
    raise typer.Exit(EXIT_WRONG if is_wrong else 0)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(
        Column("", no_wrap=True),
        Column("check", overflow="fold", ratio=2),
        Column("found", overflow="fold", ratio=3),
        Column("wanted", overflow="fold", ratio=3),
        header_style="bold",
        box=None,
        pad_edge=False,
        expand=True,
    )
    for finding in findings:
        mark, style = _MARKS[finding.state.value]
        table.add_row(*(Text(cell, style=style) for cell in (mark, finding.check, finding.found, finding.wanted)))
    return table


def _narrow_table(findings: Sequence[Finding]) -> Table:
    """Below each other: side by side a subject would be broken inside of its words, and could not be copied."""
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for finding in findings:
        mark, style = _MARKS[finding.state.value]
        if finding.state.value == "fine":
            table.add_row(mark, Text(f"{finding.check}: {finding.found}"))
            continue
        for head, text in ((mark, finding.check), ("", f"found: {finding.found}"), ("", f"wanted: {finding.wanted}")):
            table.add_row(Text(head, style=style), Text(text, style=style))
    return table


def _print(findings: Sequence[Finding], *, brief: bool) -> None:
    """A table, and below it what to do about each thing that is not fine."""
    from noetl_worker.cli.views.comparison import operator_console

    console = operator_console()
    shown = [finding for finding in findings if not brief or finding.state.value != "fine"]
    if shown:
        console.print(_table(shown) if console.width >= _TABLE_WIDTH else _narrow_table(shown))
    for finding in findings:
        mark, style = _MARKS[finding.state.value]
        if finding.fix and finding.state.value != "fine":
            console.print()
            console.print(Text(f"{mark}  {finding.check}: {finding.fix}", style=style), soft_wrap=True)
    counts = {state: sum(finding.state.value == state for finding in findings) for state in _MARKS}
    console.print()
    console.print(
        f"{counts['fine']} fine, {counts['warning']} warnings, {counts['wrong']} wrong, {counts['unknown']} not known",
        markup=False,
    )
