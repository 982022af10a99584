"""Results of tools, and the differences between the results that the two planes expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from noetl_worker.models.task_try import TaskTry
from noetl_worker.models.wire import JsonValue


class ToolStatus(str, Enum):
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """The reason why a tool's status is not success (kinds: protocol/tasks.md#results)."""

    message: str
    kind: str = "unknown"
    retryable: bool = False
    code: str | None = None


@dataclass(frozen=True, slots=True)
class RaisedFailure(ToolFailure):
    """A failure that a task raised as an exception, inside a list of tasks. The failure fails the whole command on both
    planes, unless a policy rule of the task continues the list."""


@dataclass(slots=True)  # not frozen: two are made per command, and freezing costs time; nothing changes one
class ToolResult:
    """The result that a tool returned: a success or a failure."""

    status: ToolStatus
    data: JsonValue = None
    error: ToolFailure | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    tries: Sequence[TaskTry] = ()
    """Attempts at the single tasks, if the tool ran a list of tasks; otherwise empty."""

    @classmethod
    def success(cls, data: JsonValue = None, **fields: Any) -> ToolResult:
        """Return the result of a tool that has done its work.

        Args:
            data: the step's result as later steps see it.
            fields: `stdout`, `stderr`, `exit_code`, `duration_ms`.
        """
        return cls(status=ToolStatus.SUCCESS, data=data, **fields)

    @classmethod
    def failure(
        cls,
        message: str,
        *,
        kind: str = "unknown",
        retryable: bool = False,
        code: str | None = None,
        **fields: Any,
    ) -> ToolResult:
        """Return a failure that the playbook may handle, such as an exit code or an HTTP status.

        Args:
            message: what failed, with which value, and what to do.
            kind: a word of protocol/tasks.md#results: `auth`, `connection`, `timeout`, ...
            retryable: True if the same call may succeed later.
            code: the tool's own code, which policy rules of a playbook can read: an HTTP status, a SQLSTATE.
            fields: `data`, `stdout`, `stderr`, `exit_code`, `duration_ms`.
        """
        error = ToolFailure(message=message, kind=kind, retryable=retryable, code=code)
        return cls(status=ToolStatus.ERROR, error=error, **fields)

    @classmethod
    def raised(cls, message: str, **fields: Any) -> ToolResult:
        """Return the result of a task, in a list of tasks, that failed with an exception.

        Args:
            message: the text of the failure.
            fields: `kind`, `retryable` and `code` of the failure.
        """
        return cls(status=ToolStatus.ERROR, error=RaisedFailure(message, **fields))

    @classmethod
    def timed_out(cls, timeout_s: float, *, retryable: bool = True, **fields: Any) -> ToolResult:
        """Return the result of a tool that was ended by its timeout.

        Args:
            timeout_s: the timeout, in seconds.
            retryable: True if the same call may be made again.
            fields: the partial `data`, `stdout`, `stderr`, `exit_code` and `duration_ms`.
        """
        error = ToolFailure(f"Execution timed out after {timeout_s:g} seconds", kind="timeout", retryable=retryable)
        return cls(status=ToolStatus.TIMEOUT, error=error, **fields)

    def lasting(self, duration_ms: int) -> ToolResult:
        """Return a copy of this result with the given duration.

        Args:
            duration_ms: the duration, in milliseconds.
        """
        output = self.stdout, self.stderr, self.exit_code
        return ToolResult(self.status, self.data, self.error, *output, duration_ms, self.tries)

    def to_json(self) -> dict[str, JsonValue]:
        """Return this result as JSON (protocol/tasks.md#results).

        `status` is always there, the other keys only when set; `error` is a string.
        """
        body: dict[str, JsonValue] = {"status": self.status.value}
        if self.error is not None:
            body["error"] = self.error.message
        for name in ("data", "stdout", "stderr", "exit_code", "duration_ms"):
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolForm:
    """Differences between the two planes in what tools read and return. Each plane's own worker has its own format, and
    playbooks rely on that format."""

    success_word: str
    """Status word of a successful task, as the policy rules of a playbook see it: `ok` or `success`."""
    missing_value: JsonValue = None
    """Value of an undefined variable in a template of an input or a task."""
    error_has_status_code: bool = False
    """True if, after an HTTP request, `output.error` also has the HTTP status code."""
    not_of_http: frozenset[str]
    """Fields that the result of an HTTP request lacks on this plane."""
    field_list_is_json: bool = False
    """True if a list in `params` or `form` (kind http) is sent as one JSON text, not as one field per item."""
    main_first: bool = False
    """True if code (kind python) returns the result of its function `main`, even if a variable `result` is set."""
    reads_input_again: bool = False
    """True if the worker changes the strings in a `python` step's input before the code gets them. A string such as
    `"[1]"` becomes the list or object that it contains. Every other string loses its last line break."""
    variables_hide_arguments: bool = False
    """True if a script (kind rhai) sees the command's variable, not its argument, where both have the same name."""
    says_no_result: bool = False
    """True if a `python` step whose code sets no result has an object with a status and a message as its result. The
    worker makes this object."""
    has_return_code: bool = False
    """True if the result of kind shell names the exit code `returncode`, and lists all commands with their
    durations."""
    sql_has_message: bool = False
    """True if a SQL result has a status and a message, and `row_count` counts the rows that a write changed."""
    numbers_statements: bool = False
    """True if a DuckDB result also describes each statement under numbered keys: `command_1_rows`,
    `command_1_sample`."""
    noop_names_step: bool = False
    """True if the result of a tool of kind noop contains the step's name."""
    child_is_its_status: bool = False
    """True if a step that runs a child execution returns the child's status document, not the child's result value."""
    start_takes_trace: bool = False
    """True if the plane accepts a field `trace` in the request that starts a child execution. The plane then puts
    `trace` into the notifications of the child's commands (protocol/notification.md#message)."""
    sequence_is_flat: bool = False
    """True if the result of a list of tasks is one object whose keys are the task labels. Failed tasks have a key
    too."""
    bare_rule_holds: bool = False
    """True if a policy rule that has an action but no `when` or `else` always applies. False if such a rule never
    applies (protocol/tasks.md#policies)."""
