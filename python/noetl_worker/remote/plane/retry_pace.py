"""How often commands are asked for again that the plane cannot give, while it gives others.

A server error of one command looks like one of the whole plane. Who waits as for a plane that is down (0.5 s growing to
30 s) asks a thousand such commands 60 times a second, for ever; protocol/jetstream.md#acknowledging, wants 5.
"""

from __future__ import annotations

import random
import time
from typing import Final

from noetl_worker.models.claim import ClaimOutcome, RetryLater

RATE_PER_S: Final = 5.0
FROM_DELIVERY: Final = 4
"""Earlier tries follow the usual back-off: by the fourth, a plane that has just broken gives nothing to anybody."""
HEALTHY_S: Final = 1.0
"""A plane that gave a command so lately is well, and the trouble is this command's own."""
MAX_WAIT_S: Final = 240.0
"""Of an hour that the stream keeps a message: a command that is mended on the plane is run within minutes."""


class RetryPace:
    """One for each control plane: what one of them gives says nothing of another."""

    def __init__(self) -> None:
        self.given_at = float("-inf")
        """When the plane gave a command last (monotonic)."""
        self._last_turn = float("-inf")

    def after(self, claim: ClaimOutcome, num_delivered: int) -> float:
        """How many seconds the message of a claim that gave no command has to wait at least (mostly 0)."""
        now = time.monotonic()
        is_its_own = isinstance(claim, RetryLater) and claim.is_server_error and now - self.given_at < HEALTHY_S
        if not is_its_own or num_delivered < FROM_DELIVERY:
            return 0.0
        turn = max(now, self._last_turn) + 1 / RATE_PER_S
        if turn > now + MAX_WAIT_S:  # more than there are turns: spread, or all of them come in one second
            return MAX_WAIT_S * (0.5 + 0.5 * random.random())
        self._last_turn = turn
        return turn - now
