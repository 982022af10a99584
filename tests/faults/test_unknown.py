"""Notifications of commands that the plane does not know must not hold up the others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import nats
import pytest

from faults.conftest import Measured
from faults.scene import Scene, inside, scene
from integration.house import run
from noetl_worker.dev.plane import RawCommand
from noetl_worker.models import Dialect

KNOWN, UNKNOWN = 900, 100
PAIRS = 3
"""The best of so many pairs: a machine that is busy with something else spoils one, a held-up queue spoils all."""
NOISE_S = 0.2
SHORT_DELAYS = inside(SET="noetl_worker.acknowledge:MAX_DELAY_S=1")
"""NOETL_WORKER_MAX_NOT_FOUND (6 asks) stays as it is; for the longest delay between two asks there is no setting."""


async def publish_all(home: Scene, bodies: list[bytes]) -> None:
    client = await nats.connect(home.nats.url)
    try:
        for body in bodies:
            await client.publish("noetl.commands", body)
        await client.flush()
    finally:
        await client.close()


def notification(home: Scene, event_id: int, command_id: Any, execution_id: int) -> bytes:
    body = {"execution_id": execution_id, "event_id": event_id, "command_id": command_id, "step": "start"}
    return json.dumps({**body, "server_url": home.plane.url}).encode()


async def time_known(home: Scene, unknown: list[int]) -> float:
    """Seconds until KNOWN commands have ended, published with a notification nobody knows after each ninth."""
    issued = await home.plane.create_commands([RawCommand("noop") for _ in range(KNOWN)], publish=False)
    bodies, left = [], iter(unknown)
    for number, one in enumerate(issued):
        bodies.append(notification(home, one.event_id, one.command_id, one.execution_id))
        if number % 9 == 8 and (event_id := next(left, None)) is not None:
            bodies.append(notification(home, event_id, event_id - 1, 1))
    started = time.monotonic()
    await publish_all(home, bodies)
    await home.wait_terminal(*(one.event_id for one in issued), timeout_s=30)
    took_s = time.monotonic() - started
    await home.assert_books(issued, settle_timeout_s=30)
    return took_s


@pytest.mark.timeout(100)
@pytest.mark.parametrize("dialect", Dialect)
def test_unknown_commands_hold_up_nothing_and_are_asked_six_times_at_most(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    async def go() -> None:
        async with scene(tmp_path, dialect) as home:
            worker = await home.start_process(**SHORT_DELAYS, FAULTS_TASKS=str(tmp_path / "worker.tasks"))
            await time_known(home, [])  # warm
            before = await home.leftovers(worker)
            pairs, unknown = [], []
            for number in range(PAIRS):
                alone = await time_known(home, [])
                now = list(range(10_000 * (number + 1), 10_000 * (number + 1) + UNKNOWN))
                unknown += now
                pairs.append((await time_known(home, now), alone))
                if pairs[-1][0] <= 1.1 * pairs[-1][1]:
                    break
            beside, alone = min(pairs, key=lambda pair: pair[0] / pair[1])
            measured("U", f"{dialect.value}: 900 commands alone", alone, "s")
            measured("U", f"{dialect.value}: beside 100 unknown", beside, "s", at_most=1.1 * alone + NOISE_S)
            measured("U", f"{dialect.value}: most asks for one", max(home.asked[one] for one in unknown), "", at_most=6)
            letters = await home.dead_letters()
            assert all(letter["reason"].startswith("unknown command") for letter in letters)
            kept = sorted(json.loads(letter["notification"])["event_id"] for letter in letters)
            measured("U", f"{dialect.value}: unknown without a dead letter", len(unknown) - len(kept), "", exactly=0)
            assert kept == unknown
            await home.assert_holds_no_more(worker, before)
            await home.stop_all()

    run(go())
