"""The one formula of a back-off, and what its callers get from it."""

from __future__ import annotations

import pytest

from noetl_worker.models import backoff


@pytest.mark.parametrize(
    ("first_s", "most_s", "jitter", "longest", "shortest"),
    [
        (0.5, 30.0, 0.9, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], 0.1),
        (0.2, 10.0, 0.9, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0], 0.1),
        (0.5, 5.0, 0.5, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0], 0.5),
        (0.1, 5.0, 0.5, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0], 0.5),
        (0.5, 5.0, 0.0, [0.5, 1.0, 2.0, 4.0, 5.0], 1.0),
    ],
    ids=["queue", "control plane", "gate and first connection", "pull", "start"],
)
def test_wait_doubles_up_to_its_most_and_its_share_of_chance_is_taken_off(
    first_s: float, most_s: float, jitter: float, longest: list[float], shortest: float
) -> None:
    def all_of(drawn: float) -> list[float]:
        return [
            backoff.delay_s(n, first_s, most_s, jitter=jitter, draw=lambda: drawn) for n in range(1, len(longest) + 1)
        ]

    assert all_of(1.0) == pytest.approx(longest)
    assert all_of(0.0) == pytest.approx([one * shortest for one in longest])


def test_attempt_of_any_number_is_no_overflow() -> None:
    assert backoff.delay_s(10**9, 0.5, 30.0, jitter=0.9, draw=lambda: 0.0) == pytest.approx(3.0)
