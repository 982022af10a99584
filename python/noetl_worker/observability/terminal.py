"""Output to a terminal, without control characters from untrusted sources. Such characters could set the clipboard (OSC
52) or the window's title, or show lines that nobody printed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Column, Table

PLAIN_WIDTH: Final = 120
"""Width of output in characters if standard output is not a terminal. People still read output of `kubectl exec`
without -t on a terminal."""


def harmless(text: str) -> str:
    """Return the text with each control character as `\\x..`; line feeds and tabs stay."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)


def harmless_json(text: str) -> str:
    """Return a JSON text with its control characters escaped. `json.dumps` escapes only the control characters of
    ASCII."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format a duration by its two largest units: 3d4h, 1h5m, 20m, 45s."""
    rest, parts = round(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts[:2]) or "0s"


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Write a text to standard output, or to standard error if `err`. Control characters are escaped."""
    import typer

    typer.echo(harmless(text), err=err, nl=nl)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Write a value to standard output as JSON, without raw control characters. Without `indent`, the JSON is one
    line."""
    say(harmless_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def safe_console(**given: Any) -> Console:
    """Return a console of `rich` that escapes control characters in all texts. `given` is passed to `Console`."""
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(harmless(one.text), one.style)

    return SafeConsole(**given)


def operator_console() -> Console:
    """Return a console of `rich` for standard output. It has colours only on a terminal. Its width is the terminal's
    width, else the variable COLUMNS, else PLAIN_WIDTH."""
    console = safe_console(highlight=False)
    has_width = console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
    return console if has_width else safe_console(highlight=False, width=PLAIN_WIDTH)


def plain_table(*columns: Column | str, **options: Any) -> Table:
    """Return a table of `rich` without borders, so that text copied from a terminal contains only the cells."""
    from rich.table import Table

    return Table(*columns, header_style="bold", box=None, pad_edge=False, **options)
