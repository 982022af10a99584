"""The simulator can fail: every deliberate bug is noticed within the seeds of CI."""

from __future__ import annotations

import pytest

from noetl_worker.models import Dialect
from simulate.broken import BUGS, with_bug
from simulate.run import Run, run_seed
from simulate.test_seeds import SEEDS


def first_failure(bug: str) -> Run | None:
    with with_bug(bug):
        for seed in SEEDS:
            for dialect in Dialect:
                run = run_seed(seed, dialect)
                if run.violations:
                    return run
    return None


@pytest.mark.parametrize("bug", BUGS)
def test_a_broken_worker_is_noticed(bug: str) -> None:
    run = first_failure(bug)
    assert run is not None
    report = run.report()
    assert run.violations[0] in report
    assert (
        f"replay: make simulate FROM={run.schedule.seed} SEEDS=1 DIALECT={run.schedule.dialect.value} TRACE=1" in report
    )
