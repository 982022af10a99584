"""Waits before the next try: one formula for the worker's own retries, another for retries that a playbook asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

GROWTHS: Final = ("none", "fixed", "linear", "exponential")


def delay_s(
    attempt: int, first_s: float, most_s: float, *, jitter: float, draw: Callable[[], float] = random.random
) -> float:
    """Return a wait of first_s * 2^(attempt-1) seconds, at most most_s. The fraction `jitter` of it is random.

    Args:
        attempt: number of the failed try, from 1.
        jitter: between 0 and 1. 0.9 gives a wait between a tenth and all of it, so that workers that failed at the same
            time do not come back at the same time.
    """
    base_s = min(most_s, first_s * 2.0 ** min(attempt - 1, 16))
    return base_s * (1 - jitter + jitter * draw())


def asked_s(growth: str, first_s: float, tries: int, *, multiplier: float = 2.0) -> float:
    """Return the wait in seconds that a policy rule or a `retry` asks for after `tries` failed tries. It is neither
    random nor limited.

    Args:
        growth: one of GROWTHS.
    """
    if growth == "exponential":
        return float(first_s * multiplier ** min(tries - 1, 64))
    return first_s * {"none": 0.0, "linear": float(tries)}.get(growth, 1.0)
