"""A worker that loses what it cannot mend by itself drains, says what it lost, and ends with a code of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults.proxy import Proxy, Way
from faults.scene import Scene, inside, scene
from integration.processes import Gate, WorkerProcess, last_words
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand

CANNOT_GO_ON = 6
SOON = {"WORKER_NATS_LAG_POLL_INTERVAL": "1", "NOETL_WORKER_ACK_WAIT_S": "3"}


async def ended_and_replaced(home: Scene, worker: WorkerProcess, one: IssuedCommand) -> dict[str, Any]:
    """The line that the worker leaves; what ran in it has its one end, and its successor finds nothing undone."""
    assert await worker.exit_code() == CANNOT_GO_ON, worker.text[-3000:]
    await home.start_process("successor")
    await home.wait_ended([one])
    await home.close_books([one])
    return last_words(worker)


async def test_worker_whose_nats_connection_is_closed_for_good_says_so_and_drains(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home, Proxy(home.nats.port) as proxy:
        worker = await home.start_process(NATS_URL=f"nats://127.0.0.1:{proxy.port}", **SOON)
        [one] = await home.running(gate)
        proxy.say(Way.DOWN, b"-ERR 'User Authentication Expired'\r\n")
        await worker.wait_logged("draining")
        gate.open()
        line = await ended_and_replaced(home, worker, one)
        assert gate.runs == 1
    assert line["reason"] == "nats_closed"
    assert "NATS closed the connection for good" in line["error"]
    assert "user authentication expired" in line["error"]


async def test_worker_whose_keepalive_thread_has_ended_says_so_and_drains(tmp_path: Path) -> None:
    gate, part = Gate(tmp_path), "InProgress._extend"
    async with scene(tmp_path) as home:
        worker = await home.start_process(**SOON, **inside(BREAK=f"noetl_worker.pipeline.delivery.keepalive:{part}"))
        [one] = await home.running(gate)
        await worker.wait_logged("draining")
        gate.open()
        line = await ended_and_replaced(home, worker, one)
        assert f"{part} is broken on purpose" in worker.logged("keepalive_died")[0]["error"]
    assert line["reason"] == "keepalive"
    assert "the keepalive thread has ended" in line["error"]
