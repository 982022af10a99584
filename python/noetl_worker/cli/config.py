"""`noetl-worker config`: every setting with its value and where it came from; secrets hidden."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from noetl_worker.errors import SettingsError
from noetl_worker.settings import SETTINGS, load_settings

__all__ = ["config", "settings_markdown"]


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
    table = Table("variable", "value", "default", "unit")
    for line in SETTINGS:
        value = getattr(settings, line.field)
        shown = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        table.add_row(line.variable, shown, line.default, line.unit)
    Console().print(table)


def settings_markdown() -> str:
    """The README's table of settings."""
    rows = ["| variable (aliases) | default | unit | what | source |", "|---|---|---|---|---|"]
    for line in SETTINGS:
        names = ", ".join(f"`{name}`" for name in (line.variable, *line.aliases))
        default = f"`{line.default}`" if line.default else "–"
        rows.append(f"| {names} | {default} | {line.unit or '–'} | {line.help} | {line.source} |")
    return "\n".join(rows) + "\n"
