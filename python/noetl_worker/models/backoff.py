"""Waiting times before a retry: `delay_s` for the worker's own retries, `asked_s` for retries that a playbook
defines."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

GROWTHS: Final = ("none", "fixed", "linear", "exponential")


def delay_s(
    attempt: int, first_s: float, most_s: float, *, jitter: float, draw: Callable[[], float] = random.random
) -> float:
    """Return the wait in seconds before a retry: first_s * 2^(attempt-1), at most `most_s`, minus a random part.

    Args:
        attempt: number of the failed attempt, from 1.
        jitter: largest fraction of the wait that is subtracted at random, from 0 to 1. With 0.9, between 10 % and 100 %
            of the wait remains. So workers that failed at the same time retry at different times.
    """
    base_s = min(most_s, first_s * 2.0 ** min(attempt - 1, 16))
    return base_s * (1 - jitter + jitter * draw())


def asked_s(growth: str, first_s: float, tries: int, *, multiplier: float = 2.0) -> float:
    """Return the wait in seconds that a playbook defines for a retry, in a policy rule or in `retry`. The wait has no
    random part and no upper limit.

    Args:
        growth: how the wait grows with each failed attempt, one of GROWTHS.
        tries: number of failed attempts so far.
    """
    if growth == "exponential":
        return float(first_s * multiplier ** min(tries - 1, 64))
    return first_s * {"none": 0.0, "linear": float(tries)}.get(growth, 1.0)
