"""What the doctor's checks find, by their names, and a server for them to look at."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from noetl_worker.doctor import Finding, State
from noetl_worker.settings.settings import Settings, load_settings


def settings(directory: Path, **variables: str) -> Settings:
    return load_settings({"NOETL_WORKER_OUTBOX_DIR": str(directory / "outbox"), **variables}, dotenv=Path(os.devnull))


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({one.check for one in findings}) == len(findings)
    return {one.check: one for one in findings}


def not_fine(findings: list[Finding]) -> dict[str, State]:
    return {one.check: one.state for one in findings if one.state is not State.FINE}


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Its port; at the end no connection is left open."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):  # the other side went away
            await serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
