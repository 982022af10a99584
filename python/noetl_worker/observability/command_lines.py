"""The choice of finished commands that get a log line: NOETL_WORKER_LOG_COMMANDS."""

from __future__ import annotations

import logging
from typing import Final

from noetl_worker.observability.logging import level_is_on

MOST_A_SECOND: Final = 50
"""Commands per second that each get a line of their own."""
ONE_OF: Final = 100
"""Sampling rate above MOST_A_SECOND: one command in this many gets a line."""


class CommandLines:
    """Chooses the commands that get a log line, for one worker. A command without a line costs one call."""

    def __init__(self, which: str) -> None:
        """Choose by `which`: failed, sampled, all or none. A failed command has the line `command_failed` instead."""
        self._which = which
        self._second_ends = 0.0
        self._left = MOST_A_SECOND
        self._above = 0
        self.read_level()

    def read_level(self) -> None:
        """Read the log's level, which an operator may have changed.

        Not called for each command: binding a logger costs more than the command line it would not write.
        """
        self.is_debug = level_is_on(logging.DEBUG)
        """True if each delivery gets a log line."""
        self.is_on = self.is_debug or (self._which in ("sampled", "all") and level_is_on(logging.INFO))

    def share(self, at: float) -> float:
        """Return the share of the commands ending now that get a log line; 0 means no line for this command.

        Args:
            at: when its tool ended, monotonic: the clock is not asked again.
        """
        if self._which != "sampled":
            return 1.0 if self._which == "all" else 0.0
        if at >= self._second_ends:
            self._second_ends, self._left = at + 1.0, MOST_A_SECOND
        if self._left > 0:
            self._left -= 1
            return 1.0
        self._above += 1
        return 0.0 if self._above % ONE_OF else 1 / ONE_OF
