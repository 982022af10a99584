"""How long to wait before the next try: one formula for all of them.

What a playbook asks for (`retry` of http, policy rules) has formulas of its own, which its author reads and sets.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["delay_s"]


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
