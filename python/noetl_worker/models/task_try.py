"""An attempt at a task in a list of tasks, recorded for people who inspect the command."""

from __future__ import annotations

from typing import NamedTuple


class TaskTry(NamedTuple):
    task: str
    kind: str
    attempt: int
    at_ms: int
    """Start of the attempt, in milliseconds since the list of tasks started."""
    duration_ms: int
    then: str
    """Action that followed the attempt: continue, retry, jump, break or fail."""
    error: str = ""
    """Error text of a failed attempt; "" for a success."""
    answer: str = ""
    """First characters of the data that a failed attempt returned. Like `stdout` and `stderr`, this text is not
    redacted yet."""
    stdout: str = ""
    """Last characters that the task wrote to standard output."""
    stderr: str = ""
    """Last characters that the task wrote to standard error."""
