"""One try of a task of a list, for the people who look at the command."""

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
    """What follows: continue, retry, jump, break or fail."""
    error: str = ""
    """Reason of a failed try; empty for a success."""
    answer: str = ""
    """Beginning of a failed try's data. As the two below not redacted yet."""
    stdout: str = ""
    stderr: str = ""
    """End of what it printed."""
