"""Log lines of an outage: one when something fails, one a minute while it lasts, one when it is over."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Final

SAID_EVERY_S: Final = 60.0


class Outage:
    """State of one dependency's outage. Returns the fields of a log line when one is due; thread-safe."""

    def __init__(self, after: int = 1) -> None:
        """Create the state. The dependency counts as down from `after` failures in a row."""
        self._after = after
        self._lock = threading.Lock()
        self._failures = 0
        self._unsaid = 0
        self._began = self._said = 0.0
        self._since = ""

    @property
    def is_on(self) -> bool:
        return self._failures >= self._after

    def lasts(self, error: str) -> dict[str, object] | None:
        """Note a failure. Return the fields of a due line: error, start, duration, failures since the last line."""
        now = time.monotonic()
        with self._lock:
            if self._failures == 0:
                self._began = now
                self._since = datetime.datetime.fromtimestamp(time.time(), datetime.timezone.utc).isoformat(
                    timespec="seconds"
                )
            was_on = self.is_on
            self._failures += 1
            self._unsaid += 1
            if not self.is_on or (was_on and now - self._said < SAID_EVERY_S):
                return None
            self._said = now
            failures, self._unsaid = self._unsaid, 0
            return {"error": error, "failures": failures, **self._times(now)}

    def ends(self) -> dict[str, object] | None:
        """Note a success. Return the outage's start and duration, or None if there was no outage."""
        with self._lock:
            line = self._times(time.monotonic()) if self.is_on else None
            self._failures = self._unsaid = 0
            return line

    def rest(self, *, at_once: bool = False) -> int | None:
        """Return how many failures no line has told; None: the last line is not a minute ago, nor `at_once`.

        They count as told now.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._said < SAID_EVERY_S and not at_once:
                return None
            unsaid, self._unsaid = self._unsaid, 0
            if unsaid:
                self._said = now
            return unsaid

    def _times(self, now: float) -> dict[str, object]:
        return {"since": self._since, "for_s": round(now - self._began, 1)}
