"""Waits before the next try: one formula for the worker's own retries, one for the retries that a playbook asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

GROWTHS: Final = ("none", "fixed", "linear", "exponential")


def delay_s(
    attempt: int, first_s: float, most_s: float, *, jitter: float, draw: Callable[[], float] = random.random
) -> float:
    """Return first_s * 2^(attempt-1), at most most_s, with the share `jitter` of it random.

    Args:
        attempt: 1 before the first wait.
        jitter: 0.9 gives between a tenth and all of the wait, so workers that failed together return spread out.
    """
    base_s = min(most_s, first_s * 2.0 ** min(attempt - 1, 16))
    return base_s * (1 - jitter + jitter * draw())


def asked_s(growth: str, first_s: float, tries: int, *, multiplier: float = 2.0) -> float:
    """Return the wait that a policy rule or a `retry` asks for after `tries` tries: not random, not capped."""
    if growth == "exponential":
        return float(first_s * multiplier ** min(tries - 1, 64))
    return first_s * {"none": 0.0, "linear": float(tries)}.get(growth, 1.0)
