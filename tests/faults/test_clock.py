"""F22: the clock is wrong, or jumps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from faults.conftest import Measured
from faults.scene import inside, scene
from holds import HOLDS_TIMES
from integration.house import TERMINAL
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

PASSED_ON = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: counted, path: t/counted}
workflow:
  - step: start
    tool: {kind: python, code: "result = {'n': 1}"}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: python, input: {n: "{{ start.n }}"}, code: "result = {'n': int(n or -100) + 1}"}
    next: {arcs: [{step: third}]}
  - step: third
    tool: {kind: python, input: {n: "{{ second.n }}"}, code: "result = {'n': int(n or -100) + 1}"}
"""


BOTH_WAYS = [(plane, wrong_by_s) for plane in Dialect for wrong_by_s in (-60, 0.2)]


@pytest.mark.parametrize(
    ("dialect", "wrong_by_s"), BOTH_WAYS if HOLDS_TIMES else [(Dialect.PYTHON, -60), (Dialect.RUST, 0.2)]
)
async def test_f22_values_reach_the_next_steps_whatever_the_worker_holds_for_the_time(
    dialect: Dialect, wrong_by_s: float, tmp_path: Path, measured: Measured
) -> None:
    """Server 3.54.0 passes over results below the end of another command: with a clock 50 ms ahead all were null."""
    clock = tmp_path / "clock"
    clock.write_text(str(wrong_by_s))
    async with scene(tmp_path, dialect) as home:
        await home.start_process(**inside(CLOCK=str(clock)))
        home.plane.register_playbook(PASSED_ON)
        execution_id = await home.plane.execute("t/counted")
        assert await home.plane.wait_ended(execution_id) == "COMPLETED"
        events = home.plane.events(execution_id, "call.done")
        await home.stop_all()
    numbers = {event.node: _number(event) for event in events}
    lost = sum(numbers.get(step) != value for step, value in (("start", 1), ("second", 2), ("third", 3)))
    measured("F22", f"{dialect.value}, {wrong_by_s:+g} s: values that do not reach the next step", lost, "", exactly=0)


def _number(event: LoggedEvent) -> int | None:
    found = re.search(r'"n": ?(-?\d+)', json.dumps(event.result))
    return int(found[1]) if found else None


@pytest.mark.parametrize(("dialect", "wrong_by_s"), [(Dialect.PYTHON, -3600), (Dialect.RUST, 3600)])
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
            assert await home.plane.wait_ended(execution_id) == "COMPLETED"
        await home.assert_books(issued)
        below = 0
        for one in issued:
            for event in home.plane.events_of_command(one.event_id, "call.done", *TERMINAL):
                below += event.event_id <= one.event_id
        await home.stop_all()
        assert max(home.grants.values()) == 1
    measured("F22", f"{dialect.value}, {wrong_by_s:+} s: event ids below the command's own", below, "", exactly=0)
