"""What one command costs a real plane: the published Rust control plane and its Postgres, with our worker before them.

Prints it as JSON, and writes it to scale.json.

An execution is a playbook of STEPS steps that do nothing; what it costs to begin one is in the figures. CPU is that of
the plane and of Postgres. Needs what `make compat` installs once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import scale_page
from compat.postgres_server import PostgresServer
from compat.real_plane import SERVER, VERSION, control_plane, make_stream, our_worker, prepare_database
from measured_process import cpu_s
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.worker.worker import Worker
from unit_costs import plane_units

STEPS: Final = 5
EXECUTIONS: Final = 200
AT_ONCE: Final = 16
_WARM: Final = 10
_END_S: Final = 300.0


def playbook() -> str:
    names = ["start", *(f"step{number}" for number in range(2, STEPS)), "end"]
    steps = "".join(
        f"  - step: {name}\n    tool: {{kind: noop}}\n"
        + (f"    next: {{arcs: [{{step: {after}}}]}}\n" if after else "")
        for name, after in zip(names, [*names[1:], ""], strict=True)
    )
    return "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: scale, path: bench/scale}\nworkflow:\n" + steps


def plane_pid() -> int:
    """The server below this process."""
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text(encoding="ascii").split():
            if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0] == bytes(SERVER):
                return int(child)
    raise RuntimeError(f"no {SERVER} runs here")


async def executed(client: httpx.AsyncClient, worker: Worker, executions: int) -> None:
    """Begin so many, and wait until the worker has settled all of their commands."""
    before, free = sum(worker.deliveries.settled.values()), asyncio.Semaphore(AT_ONCE)

    async def begin() -> None:
        async with free:
            answer = await client.post("/api/execute", json={"path": "bench/scale", "workload": {}})
            answer.raise_for_status()

    await asyncio.gather(*(begin() for _ in range(executions)))
    deadline = time.monotonic() + _END_S
    while (settled := sum(worker.deliveries.settled.values()) - before) < executions * STEPS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{settled} of {executions * STEPS} commands in {_END_S:g} s")
        await asyncio.sleep(0.02)


async def measure() -> dict[str, Any]:
    with PostgresServer() as postgres, tempfile.TemporaryDirectory() as directory:
        prepare_database(postgres)
        database = int((postgres.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
        async with NatsServer() as server:
            await make_stream(server.url)
            async with (
                control_plane(postgres, server.url, Path(directory) / "plane.log") as url,
                httpx.AsyncClient(base_url=url, timeout=60) as client,
            ):
                body = {"content": playbook(), "resource_type": "playbook"}
                (await client.post("/api/catalog/register", json=body)).raise_for_status()
                pids = {"plane": plane_pid(), "postgres": database}
                async with our_worker(server.url, url) as worker:
                    await executed(client, worker, _WARM)
                    before = {name: cpu_s(pid) for name, pid in pids.items()}
                    started = time.monotonic()
                    await executed(client, worker, EXECUTIONS)
                    seconds = time.monotonic() - started
                    spent = {name: (cpu_s(pid) - before[name]) / EXECUTIONS / STEPS * 1e6 for name, pid in pids.items()}
                settled = dict(worker.deliveries.settled)
                units = await plane_units(client, server.url, pids.values(), EXECUTIONS)
    return {
        "version": VERSION,
        "steps": STEPS,
        "commands": EXECUTIONS * STEPS,
        "commands_per_s": EXECUTIONS * STEPS / seconds,
        "plane_cpu_us": spent["plane"],
        "postgres_cpu_us": spent["postgres"],
        "settled": settled,
        "units": units,
    }


def main() -> None:
    if not SERVER.exists():
        raise SystemExit(f"{SERVER} is not there: `make compat` installs it, once (minutes)")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = asyncio.run(measure())
    print(json.dumps(found, indent=1))
    scale_page.keep({"real_plane": found})


if __name__ == "__main__":
    main()
