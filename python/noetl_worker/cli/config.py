"""`noetl-worker config`: show every setting with its value and source, and hide secrets."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.observability.terminal import say
from noetl_worker.settings.line import SettingLine
from noetl_worker.settings.settings import SETTINGS, Secret, SettingsReading, read_settings
from noetl_worker.settings.sources import advice_on, unknown_names
from noetl_worker.settings.tools import find_family
from noetl_worker.settings.values import strip_login

_HIDDEN: Final = "***"
_HEAD: Final = ("VARIABLE", "VALUE", "UNIT", "SOURCE")


@with_setting_flags(shown=())
def config(
    flags: SettingFlags,
    markdown: Annotated[bool, typer.Option(help="Print the list of docs/settings.md instead.")] = False,
) -> None:
    """Show the settings as a worker reads them, or the error that keeps a worker from
    starting.

    One line a setting: variable, value, unit, and where the value came from
    (flag, environment, .env, a file, a NATS context, default). Into a pipe the
    columns are separated by tabs, without a heading. Secrets are shown as ***.
    Takes every flag of `run` (noetl-worker run --help lists them).
    """
    if markdown:
        say(settings_markdown(), nl=False)
        return
    rows = list(_rows(read_settings(flags=flags)))
    if unknown := unknown_names(SETTINGS, os.environ, Path(".env")):
        say(f"noetl-worker: {advice_on(unknown)}", err=True)
    if not sys.stdout.isatty():
        say("".join("\t".join(row) + "\n" for row in rows), nl=False)
        return
    widths = [max(len(row[at]) for row in (_HEAD, *rows)) for at in range(len(_HEAD) - 1)]
    for *cells, source in (_HEAD, *rows):
        say("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), source]))


def _rows(reading: SettingsReading) -> Iterator[tuple[str, str, str, str]]:
    for line in SETTINGS:
        given, value = reading.given.get(line.variable), getattr(reading.settings, line.field)
        shown = _written(tuple(value.reveal().split(",")) if line.field == "nats_url" else value)
        yield line.variable, shown, line.unit, given.source if given else "default"
    for variable, given in sorted(reading.given.items()):
        if (family := find_family(variable)) is not None:
            yield variable, _HIDDEN if family.is_secret else strip_login(given.text), "", given.source


def _written(value: Any) -> str:
    """Format a setting's value as in its environment variable, such as `a=1,b=2`.

    Hide secrets, and remove user name and password from URLs.
    """
    if isinstance(value, Secret):
        return _HIDDEN if value else ""
    if isinstance(value, Mapping):
        has_lists = any(isinstance(part, tuple) for part in value.values())  # patterns: `a=x,y;b=z`, limits: `a=1,b=2`
        return (";" if has_lists else ",").join(f"{name}={_written(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(strip_login, value))
    return "" if value is None else strip_login(str(value))


def settings_markdown() -> str:
    """Return a Markdown list of all settings for docs/settings.md. A table would be too wide for the long names."""
    return "".join(f"{_names(line)}:\n{_meaning(line)}\n" for line in SETTINGS)


def _names(line: SettingLine) -> str:
    also = (*line.aliases, *([line.file_variable] if line.is_secret else []))
    names = f"- `{line.variable}`" + (f" ({', '.join(f'`{name}`' for name in also)})" if also else "")
    if not line.default:
        return f"{names}, in {line.unit}" if line.unit else names
    return f"{names}, default `{line.default}` {line.unit}".rstrip()


def _meaning(line: SettingLine) -> str:
    text = line.meaning if line.source == "ours" else f"{line.meaning}. Source: {line.source}"
    return textwrap.fill(f"{text}.", 120, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
