"""Forty seeds of a child whose list of steps lags; `make simulate SEEDS=500` runs more."""

from __future__ import annotations

import pytest

from simulate.child_list import run_child


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(40))
def test_step_of_a_completed_child_is_waited_for_while_the_planes_list_lags(seed: int) -> None:
    assert run_child(seed) == ""
