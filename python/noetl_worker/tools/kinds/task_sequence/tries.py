"""The attempts (first executions and retries) of the tasks in a sequence, for the report of the sequence's outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from noetl_worker.models.task_try import TaskTry
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.answer_text import MAX_CHARS, answer_beginning

_MOST: Final = 100
"""Maximum number of attempts in a report. After more attempts, the report has the first 50 and the newest 50."""


@dataclass(slots=True)
class Tries:
    """List of the attempts to run the tasks of one sequence: when each began, how it ended, and which action followed.
    The list becomes a part of the outcome's report."""

    entries: list[TaskTry] = field(default_factory=list)
    _started: float = field(default_factory=lambda: time.monotonic())

    def append(
        self, began: float, ended: float, task: str, kind: str, attempt: int, result: ToolResult, then: str
    ) -> None:
        """Add one attempt of a task. `began` and `ended` are times of `time.monotonic`. `then` is the action after the
        attempt, such as `retry`."""
        error = answer = ""
        if result.status is not ToolStatus.SUCCESS:
            error = result.error.message if result.error is not None else f"ended with {result.status.value}"
            answer = answer_beginning(result.data)
        fields = fields_of(result.data)
        stdout = _end(result.stdout or fields.get("stdout"))
        stderr = _end(result.stderr or fields.get("stderr"))
        at_ms, duration_ms = int(1000 * (began - self._started)), int(1000 * (ended - began))
        self.entries.append(TaskTry(task, kind, attempt, at_ms, duration_ms, then, error, answer, stdout, stderr))
        if len(self.entries) > _MOST:
            del self.entries[_MOST // 2]


def _end(output: JsonValue) -> str:
    return output[-MAX_CHARS:] if isinstance(output, str) else ""
