"""The output of `noetl-worker doctor` for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from noetl_worker.cli.doctor import Finding
from noetl_worker.observability.terminal import operator_console

_MARKS: Final = {"fine": ("ok", ""), "warning": ("warn", "yellow"), "wrong": ("WRONG", "red"), "unknown": ("?", "cyan")}
"""Word and color with which `doctor` shows each state of a finding."""


def _table(findings: Sequence[Finding]) -> Table:
    """Return a table of findings, with the wanted state below the found state.

    The two states share a column because side by side, long NATS subjects would be broken and could not be copied.
    """
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for finding in findings:
        mark, style = _MARKS[finding.state.value]
        if finding.state.value == "fine":
            table.add_row(mark, Text(f"{finding.check}: {finding.found}"))
            continue
        for head, text in ((mark, finding.check), ("", f"found: {finding.found}"), ("", f"wanted: {finding.wanted}")):
            table.add_row(Text(head, style=style), Text(text, style=style))
    return table


def print_findings(findings: Sequence[Finding], *, brief: bool, console: Console | None = None) -> None:
    """Print a table of findings, then the advice for each finding that is not fine, then counts.

    Args:
        brief: leave out findings that are fine.
        console: where to print; default standard output.
    """
    console = console or operator_console()
    shown = [finding for finding in findings if not brief or finding.state.value != "fine"]
    if shown:
        console.print(_table(shown))
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
