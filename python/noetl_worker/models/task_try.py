"""A try of a task of a list, for people who look at the command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskTry:
    task: str
    kind: str
    attempt: int
    at_ms: int
    """Milliseconds from the start of the list."""
    duration_ms: int
    then: str
    """Action that follows: continue, retry, jump, break or fail."""
    error: str = ""
    """Reason of a failed try; empty for a success."""
    answer: str = ""
    """Beginning of a failed try's data, not redacted yet, as stdout and stderr."""
    stdout: str = ""
    stderr: str = ""
    """End of what it printed."""
