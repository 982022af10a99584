"""How long the loop has not turned, as probes and metrics tell it."""

from __future__ import annotations

import time

from noetl_worker.observability.probes import Health


def test_a_loop_that_turns_in_time_lags_by_exactly_nothing() -> None:
    assert Health(pulse=time.monotonic() + 60).loop_lag_s() == 0.0


def test_a_loop_that_is_late_lags_since_it_was_due() -> None:
    health = Health(pulse=time.monotonic() - 60)
    assert health.loop_lag_s() >= 60
    assert "blocked" in str(health.trouble())
