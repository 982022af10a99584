"""What an operator reads at a terminal: the console, and text that cannot write to it by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

PLAIN_WIDTH: Final = 120
"""Where there is no terminal to keep to. What `kubectl exec` without -t prints is read on one all the same."""


def operator_console() -> Console:
    """Standard output; without colours where it is no terminal, and as wide as COLUMNS says."""
    from rich.console import Console

    console = Console(highlight=False)
    has_width = console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
    return console if has_width else Console(highlight=False, width=PLAIN_WIDTH)


def plain_table(*columns: Column | str, **options: Any) -> Table:
    """Without lines: what is copied out of it is what stands in it."""
    from rich.table import Table

    return Table(*columns, header_style="bold", box=None, pad_edge=False, **options)


def harmless(text: str) -> str:
    """Without control characters: whoever can publish a message must not write to an operator's terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)
