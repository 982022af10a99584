"""The version before, this one, and back again, on one durable and one outbox directory (`make upgrade-test`)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from faults.scene import Scene, scene
from integration.house import TERMINAL
from integration.processes import INSIDE, SHORT_LEASES, Gate, WorkerProcess, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect

BEFORE = os.environ.get("TESTS_UPGRADE_FROM", "")
"""The folder `python` of the version before."""
LOAD_S = float(os.environ.get("TESTS_UPGRADE_LOAD_S", "20"))
"""How long both versions work side by side: 20 s in `.ci/run`, ten minutes at night."""
AT_ONCE = 40
"""Commands that are not ended yet, of both workers together."""
BUSY = {"WORKER_MAX_CONCURRENT": "8", "WORKER_HEARTBEAT_INTERVAL": "0.5"}
EACH = 4
pytestmark = pytest.mark.skipif(not BEFORE, reason="make upgrade-test names the version before")


async def started(home: Scene, name: str, *, before: bool = False, **given: str) -> WorkerProcess:
    variables = {"WORKER_ID": "pod-0", "NOETL_WORKER_ACK_WAIT_S": "2", **given}
    if before:
        variables |= {"PYTHONPATH": os.pathsep.join((INSIDE, BEFORE)), "NOETL_WORKER_ENGINE": "python"}
    return await home.start_process(name, **variables)


async def killed_with_outcomes(home: Scene, worker: WorkerProcess, gate: Gate) -> list[IssuedCommand]:
    """Commands that this worker runs while the plane is down, and is killed with their outcomes on disk."""
    issued = await home.running(gate, EACH)
    async with home.plane.outage():
        gate.open()
        await until(lambda: home.outbox_rows() == EACH, "all refused, and on disk")
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    return issued


async def test_both_versions_share_a_durable_and_an_outbox_directory(dialect: Dialect, tmp_path: Path) -> None:
    async with scene(tmp_path, dialect) as home:
        slots = {"WORKER_MAX_CONCURRENT": str(EACH)}
        workers = [
            await started(home, "before", before=True, WORKER_ID="pod-0", **slots),
            await started(home, "this", WORKER_ID="pod-1", **slots),
        ]
        gate = Gate(tmp_path, "both")
        issued = await home.running(gate, 2 * EACH)  # the slots of both are full
        gate.open()
        issued += await home.plane.create_commands([home.effect()] * 50)
        await home.wait_ended(issued)
        await home.assert_books(issued)
        assert [await worker.stop() for worker in workers] == [0, 0]


async def half_ended(home: Scene, issued: list[Any]) -> None:
    """Wait for it: the rest is still with the workers when the next commands come."""
    await until(lambda: 2 * len(home.ends(issued, *TERMINAL)) >= len(issued), "half of them", every_s=0.1)


async def rolled(home: Scene, version: int) -> WorkerProcess:
    """A roll-out's next step: a worker of the other version in the place of `version`, under its name."""
    is_before = bool(version % 2)
    name = f"roll-{version}-{'before' if is_before else 'this'}"
    return await started(home, name, before=is_before, WORKER_ID=f"pod-{version % 2}", **BUSY)


@pytest.mark.timeout(LOAD_S * 2 + 300)
async def test_both_versions_work_side_by_side_under_load_while_workers_are_drained_and_killed(
    dialect: Dialect, tmp_path: Path
) -> None:
    """One durable, one outbox directory, a worker of each; in turns one is drained, then one killed, and replaced.

    Leases are longer than elsewhere: on a busy machine a heartbeat is half a second late, and after one second the
    plane gives a command away that runs. It takes the ends of both (protocol/claim.md#races).
    """
    leases = {**SHORT_LEASES, "claim_lease_s": 2.0, "heartbeat_stale_s": 4.0, "worker_stale_s": 4.0}
    async with scene(tmp_path, dialect, plane=leases if dialect is Dialect.PYTHON else {}) as home:
        workers = [await rolled(home, 0), await rolled(home, 1)]
        issued: list[Any] = []
        steps, ends_at = 0, time.monotonic() + LOAD_S / 2
        while time.monotonic() < ends_at or steps < 2:
            some = await home.plane.create_commands([home.effect(), RawCommand("noop")] * (AT_ONCE // 2))
            issued += some
            await half_ended(home, some)
            if time.monotonic() >= ends_at - LOAD_S / 2 + steps * LOAD_S / 10:
                at = steps % 2
                workers[at].signal(signal.SIGTERM if steps % 4 < 2 else signal.SIGKILL)
                code = await workers[at].exit_code()
                assert code == (0 if steps % 4 < 2 else -signal.SIGKILL), workers[at].text[-3000:]
                workers[at], steps = await rolled(home, at), steps + 1
        await home.wait_ended(issued)
        await home.assert_books(issued, calls_at_most=None)
        assert {one: count for one, count in home.effects.items() if count > home.grants[one]} == {}
        assert await home.dead_letters() == []
        await home.stop_all()


async def test_outcomes_survive_the_way_to_this_version_and_back(dialect: Dialect, tmp_path: Path) -> None:
    leases = SHORT_LEASES if dialect is Dialect.PYTHON else {}
    async with scene(tmp_path, dialect, plane=leases) as home:
        gate, next_gate = Gate(tmp_path, "first"), Gate(tmp_path, "second")
        first = await started(home, "before", before=True)
        issued = await killed_with_outcomes(home, first, gate)

        second = await started(home, "this")
        await home.wait_ended(issued)
        issued += await killed_with_outcomes(home, second, next_gate)

        await started(home, "back", before=True)
        await home.wait_ended(issued)
        assert [gate.runs, next_gate.runs] == [EACH, EACH], "reported from the outbox, and not run again"
        await until(lambda: not home.outbox_rows(), "all rows are reported")
        await home.close_books(issued)
