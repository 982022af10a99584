"""The published Rust worker, installed once into `.compat/published`, as a process beside ours.

It claims one command at a time, and a tool that hangs holds its slot for ever: whoever sees an execution hang
restarts it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.js.errors import NotFoundError

from compat.real_plane import ROOT, cargo_install
from noetl_worker.authoring.dev.nats_server import free_port

VERSION = "5.52.0"
PROGRAM = ROOT / ".compat" / "published" / "bin" / "noetl-worker"
CONSUMER = "published_worker"
START_S = 30.0


def install() -> None:
    cargo_install("noetl-worker", VERSION, PROGRAM, "about half an hour")


class PublishedWorker:
    """One process of it. Two at once on a stream would each get every notification."""

    def __init__(self, nats_url: str, server_url: str, log: Path) -> None:
        self._nats_url = nats_url
        self._environment = {
            **os.environ,
            "NATS_URL": nats_url,
            "NATS_STREAM": "NOETL_COMMANDS",
            "NATS_CONSUMER": CONSUMER,
            "NATS_FILTER_SUBJECT": "noetl.commands.>",
            "NOETL_SERVER_URL": server_url,
            "NOETL_CONTROL_PLANE": "auto",
            "WORKER_ID": "published-worker",
            "WORKER_MAX_CONCURRENT": "16",
            "WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}",
            "RUST_LOG": "warn",
        }
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                str(PROGRAM), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment
            )
        await self._asks()

    async def _asks(self) -> None:
        """Until its durable is there."""
        client = await nats.connect(self._nats_url)
        try:
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise SystemExit(f"the published worker ended:\n{self._log.read_text()[-3000:]}")
                try:
                    await client.jsm().consumer_info("NOETL_COMMANDS", CONSUMER)
                except NotFoundError:
                    await asyncio.sleep(0.1)
                else:
                    return
        finally:
            await client.close()
        raise SystemExit(f"the published worker asks for no commands:\n{self._log.read_text()[-3000:]}")

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@asynccontextmanager
async def published_worker(nats_url: str, server_url: str, log: Path) -> AsyncIterator[PublishedWorker]:
    worker = PublishedWorker(nats_url, server_url, log)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
