"""The choice of finished commands that get a log line: NOETL_WORKER_LOG_COMMANDS."""

from __future__ import annotations

import logging
from typing import Final

from noetl_worker.observability.logging import level_is_on

MOST_A_SECOND: Final = 50
"""Commands per second that all get a log line; of further commands only a sample does."""
ONE_OF: Final = 100
"""Size of the sample: above MOST_A_SECOND, one in this many commands gets a line."""


class CommandLines:
    """The choice for one worker. A command that gets no line costs one call."""

    def __init__(self, which: str) -> None:
        """Begin to choose.

        Args:
            which: failed, sampled, all or none. A failed command is not chosen here: it has the line `command_failed`.
        """
        self._which = which
        self._second_ends = 0.0
        self._left = MOST_A_SECOND
        self._above = 0
        self.read_level()

    def read_level(self) -> None:
        """Read the log's level, which an operator may have changed.

        Reading the level for each command would cost more than the log line.
        """
        self.is_debug = level_is_on(logging.DEBUG)
        """True if each delivery gets a log line."""
        self.is_on = self.is_debug or (self._which in ("sampled", "all") and level_is_on(logging.INFO))

    def share(self, at: float) -> float:
        """Decide about one command that has succeeded.

        Args:
            at: monotonic time at which the command's tool ended.

        Returns:
            The sampled share of commands, to be logged in this command's line (1 if all get a line). 0 if this command
            gets no line.
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
