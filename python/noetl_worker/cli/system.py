"""Where a worker runs at all."""

from __future__ import annotations

import os
from typing import Final

import typer

__all__ = ["require_posix"]

_IS_POSIX: Final = os.name == "posix"


def require_posix() -> None:
    """Raises typer.Exit where commands cannot be started and ended as the tools do it."""
    if not _IS_POSIX:
        from noetl_worker.worker_process import EXIT_CANNOT_START

        typer.echo(
            "noetl-worker: commands need the processes of a POSIX system: run it on Linux or macOS, "
            "on Windows in the Windows Subsystem for Linux",
            err=True,
        )
        raise typer.Exit(EXIT_CANNOT_START)
