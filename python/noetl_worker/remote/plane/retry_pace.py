"""Pace of retries for commands whose claims fail while the plane gives other commands.

A server error at the claim of one command looks like a fault of the whole plane. With the waits for a plane that is
down (0.5 s growing to 30 s), a thousand such commands would be claimed 60 times a second, for ever. With this pace they
are claimed 5 times a second (protocol/jetstream.md#acknowledging).
"""

from __future__ import annotations

import random
import time
from typing import Final

from noetl_worker.models.claim import ClaimAnswer, RetryLater

RATE_PER_S: Final = 5.0
FROM_DELIVERY: Final = 4
"""Number of the first delivery that is paced. A plane that has just broken down gives no more commands by the time of
this delivery."""
HEALTHY_S: Final = 1.0
"""Seconds for which a plane counts as healthy after it gave a command. The fault for a claim that fails in this time
lies with the claimed command."""
MAX_WAIT_S: Final = 240.0
"""Longest wait in seconds. A command that is corrected on the plane then still runs before its message expires, which
is after an hour."""


class RetryPace:
    """Spacing of claims of commands that fail on a plane which still gives others; one per plane."""

    def __init__(self) -> None:
        self.given_at = float("-inf")
        """Monotonic time at which the plane last gave a command."""
        self._last_turn = float("-inf")

    def least_wait_s(self, claim: ClaimAnswer, num_delivered: int) -> float:
        """Return the least wait in seconds for the message of a claim that gave no command (mostly 0)."""
        now = time.monotonic()
        is_its_own = isinstance(claim, RetryLater) and claim.is_server_error and now - self.given_at < HEALTHY_S
        if not is_its_own or num_delivered < FROM_DELIVERY:
            return 0.0
        turn = max(now, self._last_turn) + 1 / RATE_PER_S
        if turn > now + MAX_WAIT_S:  # no time is left: spread these claims, or all come in one second
            return MAX_WAIT_S * (0.5 + 0.5 * random.random())
        self._last_turn = turn
        return turn - now
