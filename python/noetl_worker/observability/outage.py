"""The log lines of an outage: one when it begins, one a minute while it lasts, one when it is over."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Final

LOGGED_EVERY_S: Final = 60.0


class Outage:
    """Counter of one dependency's failures. It limits the log lines about an outage to one a minute. Thread-safe."""

    def __init__(self, after: int = 1) -> None:
        """Create a counter without failures. An outage begins after `after` failures in a row."""
        self._after = after
        self._lock = threading.Lock()
        self._failures = 0
        self._unlogged = 0
        self._began = self._logged_at = 0.0
        self._since = ""

    @property
    def is_on(self) -> bool:
        return self._failures >= self._after

    def note_failure(self, error: str) -> dict[str, object] | None:
        """Count a failure of the dependency, and decide whether the caller must log it now.

        Returns:
            The fields of a log line if one is due: error, start, duration, number of failures since the last line. None
            if the caller must not log now.
        """
        now = time.monotonic()
        with self._lock:
            if self._failures == 0:
                self._began = now
                self._since = datetime.datetime.fromtimestamp(time.time(), datetime.timezone.utc).isoformat(
                    timespec="seconds"
                )
            was_on = self.is_on
            self._failures += 1
            self._unlogged += 1
            if not self.is_on or (was_on and now - self._logged_at < LOGGED_EVERY_S):
                return None
            self._logged_at = now
            failures, self._unlogged = self._unlogged, 0
            return {"error": error, "failures": failures, **self._times(now)}

    def note_success(self) -> dict[str, object] | None:
        """Record a success of the dependency, which ends an outage. Return the outage's start and duration; None if
        there was no outage."""
        with self._lock:
            line = self._times(time.monotonic()) if self.is_on else None
            self._failures = self._unlogged = 0
            return line

    def take_unlogged(self, *, at_once: bool = False) -> int | None:
        """Return the number of failures since the last log line, for a line that the caller writes now. Set the number
        to zero.

        Returns:
            None if the last line is less than a minute old and `at_once` is False: no line is due yet.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._logged_at < LOGGED_EVERY_S and not at_once:
                return None
            unlogged, self._unlogged = self._unlogged, 0
            if unlogged:
                self._logged_at = now
            return unlogged

    def _times(self, now: float) -> dict[str, object]:
        return {"since": self._since, "for_s": round(now - self._began, 1)}
