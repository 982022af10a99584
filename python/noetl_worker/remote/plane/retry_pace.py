"""Pace of retries for commands whose claims fail while the plane gives other commands.

A server error at the claim of one command looks like a fault of the whole plane. For such a fault, the waits grow from
0.5 s to 30 s. With these waits, a thousand failing commands would be claimed 60 times a second, for ever. With the pace
here, all of them together are claimed 5 times a second (protocol/jetstream.md#acknowledging).
"""

from __future__ import annotations

import random
import time
from typing import Final

from noetl_worker.models.claim import ClaimAnswer, RetryLater

RATE_PER_S: Final = 5.0
FIRST_DELAYED_DELIVERY: Final = 4
"""Number of the delivery of a message from which on `RetryPace` delays the message. A claim that fails
earlier may be the fault of a plane that broke down a moment ago. Later, the command itself is likely at fault."""
HEALTHY_S: Final = 1.0
"""Seconds for which a plane counts as healthy after the plane gave a command. If a claim fails in these seconds, its
own command is at fault."""
MAX_WAIT_S: Final = 240.0
"""Longest wait in seconds before a message is delivered again. A command corrected on the plane thus runs before its
message expires after an hour."""


class RetryPace:
    """Limit on how often the worker repeats claims that fail, as long as the plane grants other claims. Each plane has
    its own object."""

    def __init__(self) -> None:
        self.given_at = float("-inf")
        """Monotonic time at which the plane last gave a command."""
        self._last_turn = float("-inf")

    def least_wait_s(self, claim: ClaimAnswer, num_delivered: int) -> float:
        """Return the least number of seconds before the next delivery of a message whose claim gave no command. The
        result is 0 unless the command itself seems to be at fault."""
        now = time.monotonic()
        is_its_own = isinstance(claim, RetryLater) and claim.is_server_error and now - self.given_at < HEALTHY_S
        if not is_its_own or num_delivered < FIRST_DELAYED_DELIVERY:
            return 0.0
        turn = max(now, self._last_turn) + 1 / RATE_PER_S
        if turn > now + MAX_WAIT_S:  # no time is left: spread these claims, or all come in one second
            return MAX_WAIT_S * (0.5 + 0.5 * random.random())
        self._last_turn = turn
        return turn - now
