"""`neighbours.py COMMAND ...` runs it beside a Postgres, a nats-server, a plane and a worker of somebody else.

They have the usual ports, and the worker all of its defaults. Where a port is taken, somebody else is there already.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from compat.postgres_server import PostgresServer
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def worker(there: AsyncExitStack) -> None:
    nats = await there.enter_async_context(NatsServer(port=4222, config='http: "127.0.0.1:8222"'))
    await there.enter_async_context(DevControlPlane(PlaneSettings(port=8082), nats_url=nats.url))
    its_own = {"PATH": os.environ["PATH"], "NATS_URL": nats.url, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "noetl_worker", "run"), env=its_own, cwd="/", stdin=subprocess.DEVNULL
    )
    there.push_async_callback(process.wait)
    there.callback(process.terminate)
    while process.returncode is None and not is_taken(9090):
        await asyncio.sleep(0.05)


async def run_beside(command: list[str]) -> int:
    with ExitStack() as database:
        if not is_taken(5432):
            database.enter_context(PostgresServer(port=5432))
        async with AsyncExitStack() as there:
            if not any(is_taken(port) for port in (4222, 8082, 8222, 9090)):
                await worker(there)
            return await (await asyncio.create_subprocess_exec(*command)).wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run_beside(sys.argv[1:])))
