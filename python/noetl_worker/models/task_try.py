"""A try of a task in a list of tasks, for people who look at the command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskTry:
    task: str
    kind: str
    attempt: int
    at_ms: int
    """Time of the try in milliseconds since the start of the list."""
    duration_ms: int
    then: str
    """Action that followed the try: continue, retry, jump, break or fail."""
    error: str = ""
    """Reason of a failed try; "" for a success."""
    answer: str = ""
    """Start of a failed try's data. Like stdout and stderr it is not redacted yet."""
    stdout: str = ""
    """End of the output that the task printed."""
    stderr: str = ""
    """End of the errors that the task printed."""
