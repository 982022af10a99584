"""How long the loop has not turned, as probes and metrics tell it."""

from __future__ import annotations

import time

from noetl_worker.observability.probes import Health


def test_a_loop_that_turns_in_time_lags_by_exactly_nothing() -> None:
    assert Health(pulse=time.monotonic() + 60).loop_lag_s() == 0.0
