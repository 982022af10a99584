"""F22: the clock jumps. F23: names, certificates and credentials change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.conftest import Measured
from faults.scene import inside, scene
from integration.house import TERMINAL
from noetl_worker.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.plane.snowflake import Snowflake

HOUR_MS = 3_600_000


def test_f22_ids_never_repeat_nor_go_back_whatever_the_clock_does(measured: Measured) -> None:
    def jumping() -> Iterator[int]:
        now, jumps = 1_800_000_000_000, (HOUR_MS, -HOUR_MS, -2 * HOUR_MS, 3 * HOUR_MS)
        for number in range(10**9):
            now += number % 3 == 0
            if number % 5_000 == 4_999:
                now += jumps[number // 5_000 % len(jumps)]
            yield now

    clock = jumping()
    ids = Snowflake(7, now_ms=lambda: next(clock))
    made = [ids.next_id() for _ in range(100_000)]
    back = sum(late <= early for early, late in itertools.pairwise(made))
    measured("F22", "ids of 100,000 that repeat or go back", back, "", exactly=0)


@pytest.mark.parametrize("wrong_by_s", [-3600, 3600])
@pytest.mark.parametrize("dialect", Dialect)
async def test_f22_worker_whose_clock_is_wrong_and_jumps_ends_every_command(
    dialect: Dialect, wrong_by_s: int, tmp_path: Path, measured: Measured
) -> None:
    clock = tmp_path / "clock"
    clock.write_text(str(wrong_by_s))
    variables = inside(CLOCK=str(clock), TASKS=str(tmp_path / "worker.tasks"))
    async with scene(tmp_path, dialect) as home:
        await home.start_process(NOETL_WORKER_ACK_WAIT_S="1", **variables)
        issued = await home.plane.create_commands([RawCommand("noop") for _ in range(50)])
        await home.wait_terminal(*(one.event_id for one in issued))
        issued += await home.plane.create_commands([RawCommand("shell", {"command": "sleep 1.5"})] * 4)
        for jump_s in (0, -wrong_by_s, wrong_by_s):
            clock.write_text(str(jump_s))
            quick = await home.plane.create_commands([RawCommand("noop") for _ in range(20)])
            await home.wait_terminal(*(one.event_id for one in quick))
            issued += quick
        for execution_id in dict.fromkeys(one.execution_id for one in issued):
            assert await home.plane.wait_ended(execution_id, timeout_s=20) == "COMPLETED"
        await home.assert_books(issued)
        below = 0
        for one in issued:
            for event in home.plane.events_of_command(one.event_id, "call.done", *TERMINAL):
                below += event.event_id <= one.event_id
        await home.stop_all()
        assert max(home.grants.values()) == 1
    measured("F22", f"{dialect.value}, {wrong_by_s:+} s: event ids below the command's own", below, "", exactly=0)


# ── F23 ──
