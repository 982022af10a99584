"""Twenty seeds against each control plane; CI runs more (`make simulate`), SEEDS=1000 is for a night."""

from __future__ import annotations

from functools import cache

import pytest

from noetl_worker.models import Dialect
from simulate.run import run_seed

pytestmark = pytest.mark.sweep

SEEDS = range(20)
ran = cache(run_seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_must_hold_holds_through_the_faults_of_a_seed(seed: int, dialect: Dialect) -> None:
    run = ran(seed, dialect)
    assert not run.violations, run.report()


def test_one_seed_is_one_run_byte_for_byte() -> None:
    for seed, dialect in ((3, Dialect.PYTHON), (1, Dialect.RUST)):
        first, second = ran(seed, dialect), run_seed(seed, dialect)
        assert "\n".join(first.lines).encode() == "\n".join(second.lines).encode()
        assert len(first.lines) > 100
