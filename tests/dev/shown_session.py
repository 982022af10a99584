"""`noetl-worker dev` without its command line: what a session shows, and one that is interrupted."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from noetl_worker.authoring.dev.session import run_playbook
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect


async def session(path: Path, shown: io.StringIO, **given: Any) -> int:
    """The exit code; what it shows is written to `shown`."""
    look = {"width": given.pop("width", 200), "force_terminal": given.pop("terminal", False)}
    console = Console(file=shown, color_system=None, **look)
    known = {"dialect": Dialect.PYTHON, "keep": False, "as_json": False, "worker_factory": local_worker}
    return await run_playbook(path, given.pop("overrides", {}), console=console, **{**known, **given})


@asynccontextmanager
async def interrupted_session(path: Path, shown: io.StringIO, **given: Any) -> AsyncIterator[asyncio.Task[int]]:
    """A session that is cancelled at the end of the block, as by Ctrl-C."""
    task = asyncio.create_task(session(path, shown, **given))
    try:
        yield task
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
