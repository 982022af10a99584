"""The choice of finished commands that get a log line, according to NOETL_WORKER_LOG_COMMANDS."""

from __future__ import annotations

import logging
from typing import Final

from noetl_worker.observability.logging import level_is_on

MOST_A_SECOND: Final = 50
"""Number of commands per second that all get a log line. Further commands in the same second are only sampled."""
ONE_OF: Final = 100
"""Sampling rate beyond MOST_A_SECOND: one in this many commands gets a log line."""


class CommandLines:
    """A sampler: it chooses which finished commands of a worker get a log line. A command without a log line costs only
    one function call."""

    def __init__(self, which: str) -> None:
        """Create a sampler for the configured choice of commands.

        Args:
            which: value of NOETL_WORKER_LOG_COMMANDS: failed, sampled, all or none. Failed commands are not chosen
                here: they have the log line `command_failed`.
        """
        self._which = which
        self._second_ends = 0.0
        self._left = MOST_A_SECOND
        self._above = 0
        self.read_level()

    def read_level(self) -> None:
        """Read the current log level, which an operator may have changed, and set `is_debug` and `is_on` from it.

        The next commands use these two attributes, because reading the level for each command would cost more than the
        log line.
        """
        self.is_debug = level_is_on(logging.DEBUG)
        """True at the log level debug, at which each delivery gets a log line."""
        self.is_on = self.is_debug or (self._which in ("sampled", "all") and level_is_on(logging.INFO))

    def share(self, at: float) -> float:
        """Decide whether a command that has succeeded gets a log line.

        Args:
            at: monotonic time at which the command's tool ended.

        Returns:
            0 if this command gets no line. Otherwise the fraction of commands that get a line at present, as a field of
            the line: 1 if all commands do, 0.01 if one in a hundred does.
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
