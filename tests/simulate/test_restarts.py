"""A Python plane that restarts at any moment, and workers that are killed: every item is issued, or named."""

from __future__ import annotations

import pytest

from simulate.run import run_schedule
from simulate.schedule import make_restarts

SEEDS = range(25)
OF_A_NIGHT = range(1000)
EXCUSED = "its teller died before the rescue"
"""Of all commands: told less than KEEP_S before its worker was killed, or while the answer was on its way."""


@pytest.mark.sweep
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_restart_has_lost_is_issued_or_named_though_workers_are_killed(seed: int) -> None:
    run = run_schedule(make_restarts(seed))
    assert not run.violations, run.report()


@pytest.mark.steady
@pytest.mark.timeout(14_400)
def test_the_same_of_a_thousand_seeds() -> None:
    failed, excused = [], 0
    for seed in OF_A_NIGHT:
        run = run_schedule(make_restarts(seed))
        excused += sum(EXCUSED in line for line in run.lines)
        if run.violations:
            failed.append(run.report())
    print(f"{len(OF_A_NIGHT)} seeds, {len(failed)} failed, {excused} commands excused")
    assert not failed, "\n".join(failed)
