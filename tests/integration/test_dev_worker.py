"""The worker of `noetl-worker dev`: it ends with the session, whenever that is."""

from __future__ import annotations

import asyncio

from closed_port import closed_port
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect


async def test_session_that_is_ended_while_its_worker_starts_leaves_nothing_running() -> None:
    async with NatsServer() as server:
        nobody = f"http://127.0.0.1:{closed_port()}"
        before = asyncio.all_tasks()

        async def session() -> None:
            async with local_worker(server.url, nobody, Dialect.PYTHON):
                raise AssertionError("it is still starting")

        running = asyncio.ensure_future(session())
        while not any("Worker.run" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert asyncio.all_tasks() - before == set()
