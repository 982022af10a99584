"""How long to wait before the next try: one formula for what the worker does by itself, one for what a playbook asks
for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

GROWTHS: Final = ("none", "fixed", "linear", "exponential")


def delay_s(
    attempt: int, first_s: float, most_s: float, *, jitter: float, draw: Callable[[], float] = random.random
) -> float:
    """first_s * 2^(attempt-1), at most most_s; the share `jitter` of it is left to chance.

    Args:
        attempt: 1 before the first wait.
        jitter: 0.9 gives a tenth up to all of it: never nothing, and a fleet that failed together comes back spread.
    """
    base_s = min(most_s, first_s * 2.0 ** min(attempt - 1, 16))
    return base_s * (1 - jitter + jitter * draw())


def asked_s(growth: str, first_s: float, tries: int, *, multiplier: float = 2.0) -> float:
    """What a rule of a policy or a `retry` says, after so many tries: no chance in it, and no cap."""
    if growth == "exponential":
        return float(first_s * multiplier ** min(tries - 1, 64))
    return first_s * {"none": 0.0, "linear": float(tries)}.get(growth, 1.0)
