"""`noetl-worker config`: every setting with its value, its default and its unit; secrets hidden."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from noetl_worker.errors import SettingsError
from noetl_worker.settings import SETTINGS, load_settings

__all__ = ["config", "settings_markdown"]

PLAIN_WIDTH: Final = 200


def config(
    markdown: Annotated[bool, typer.Option(help="Print the table of the README instead.")] = False,
) -> None:
    """Show the settings as the worker reads them, or the error that would stop it."""
    if markdown:
        typer.echo(settings_markdown(), nl=False)
        return
    try:
        settings = load_settings()
    except SettingsError as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(2) from None
    table = Table(Column("variable", no_wrap=True), "value", "default", "unit")
    for line in SETTINGS:
        value = getattr(settings, line.field)
        shown = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        table.add_row(line.variable, shown, line.default, line.unit)
    console = Console()
    # Into a file or a pod's log there is no terminal's width to keep to, and a cut name is of no use.
    console.print(table, width=None if console.is_terminal else PLAIN_WIDTH, crop=False)


def settings_markdown() -> str:
    """The README's table of settings."""
    rows = ["| variable (aliases) | default | unit | what | source |", "|---|---|---|---|---|"]
    for line in SETTINGS:
        names = ", ".join(f"`{name}`" for name in (line.variable, *line.aliases))
        default = f"`{line.default}`" if line.default else "–"
        rows.append(f"| {names} | {default} | {line.unit or '–'} | {line.help} | {line.source} |")
    return "\n".join(rows) + "\n"
