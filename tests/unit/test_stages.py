"""What a stop does in each stage of a delivery, and that all of it fits into the time a pod is given."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_worker.models import stopping
from noetl_worker.remote.jetstream import connection
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker.deliveries import CANCEL_TIMEOUT_S

OPERATE = Path(__file__, "../../../docs/operate.md").resolve()


def test_all_budgets_of_a_stop_fit_into_the_grace_that_operate_asks_of_a_pod() -> None:
    found = re.search(r"terminationGracePeriodSeconds: (\d+)", OPERATE.read_text(encoding="utf-8"))
    assert found is not None
    put_away_s = stopping.KEEPALIVE_S + connection.CLOSE_S
    assert load_settings({}).drain_timeout_s + CANCEL_TIMEOUT_S + put_away_s <= int(found.group(1))
    assert max(stopping.CLAIM_S, stopping.TOOL_S + stopping.REPORT_S) <= CANCEL_TIMEOUT_S
