"""Helpers that several CLI commands share: exit codes, a POSIX check, durations, quiet logs, the pip extra `local`."""

from __future__ import annotations

import os
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer

from noetl_worker.errors import ControlPlaneError, PlaybookError, SettingsError
from noetl_worker.observability.terminal import say

ResultT = TypeVar("ResultT")
EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
"""Exit code for a wrong setting, argument or file."""
EXIT_NOT_REACHED: Final = 3
EXIT_UNKNOWN: Final = 5
"""Exit code for an id that neither the control plane nor another source knows."""
EXIT_INTERRUPTED: Final = 130
_IS_POSIX: Final = os.name == "posix"


def require_posix() -> None:
    """End the command with advice on a system that is not POSIX, since tools need POSIX processes and signals."""
    if not _IS_POSIX:
        from noetl_worker.observability.last_words import EXIT_CANNOT_START

        say(
            "noetl-worker: commands need the processes of a POSIX system: run it on Linux or macOS, "
            "on Windows in the Windows Subsystem for Linux",
            err=True,
        )
        raise typer.Exit(EXIT_CANNOT_START)


def run_quietly(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run the coroutine of a CLI command to its end, with a log that has only errors. Return the coroutine's result."""
    from noetl_worker.observability.logging import configure_logging
    from noetl_worker.process import event_loop

    configure_logging("error", "auto")
    return event_loop.run(work)


def parse_duration(flag: str, text: str, *, least_s: float = 0.0) -> float:
    """Return the seconds of a duration that a user typed: 90s, 20m, 12h, 7d.

    Raise SettingsError for any other text, and for less than `least_s` seconds.

    Args:
        flag: name of the command-line flag, for the error.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    seconds = int(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]] if found else -1.0
    if seconds < least_s:
        raise SettingsError(flag, text, "a number with s, m, h or d, for example 20m")
    return seconds


def redacted_text(error: ControlPlaneError) -> str:
    """Return the text of an error without secrets, such as a login in an address."""
    from noetl_worker.text.secrets.redaction import redact_text

    return redact_text(str(error))


@contextmanager
def with_extra_local() -> Iterator[None]:
    """Guard imports of optional packages. If a package is missing, raise PlaybookError that tells how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise PlaybookError(
            f'{error.name} is not installed: pip install "noetl-worker[local]" (in a clone: ".[local]")'
        ) from error
