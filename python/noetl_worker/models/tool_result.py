"""Results of tools, and how the results of each plane's own worker differ."""

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
    """A failure that a task of a list raised. It fails the command on both planes, unless a rule continues the list."""


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
    """Tries of the tasks, if the tool was a list of tasks."""

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
            code: the tool's own code, which rules can read: an HTTP status, a SQLSTATE.
            fields: `data`, `stdout`, `stderr`, `exit_code`, `duration_ms`.
        """
        error = ToolFailure(message=message, kind=kind, retryable=retryable, code=code)
        return cls(status=ToolStatus.ERROR, error=error, **fields)

    @classmethod
    def raised(cls, message: str, **fields: Any) -> ToolResult:
        """Return the failure that a task of a list raised.

        Args:
            message: the text of the failure.
            fields: the other fields of ToolFailure.
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
        """Return a copy of this result with its duration.

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
    """The form of tool results on one plane: that of the plane's own worker, because playbooks rely on it."""

    success_word: str
    """Word for a successful status that the rules of a policy read."""
    missing_value: JsonValue = None
    """Value of an undefined variable in a template of an input or a task."""
    error_has_status_code: bool = False
    """True if `output.error` of an HTTP answer also has the status code."""
    not_of_http: frozenset[str]
    """Fields that the result of an HTTP request lacks on this plane."""
    field_list_is_json: bool = False
    """True if a list in `params` or `form` (kind http) is sent as one JSON text, not as one field per item."""
    main_first: bool = False
    """True if a function `main` takes precedence over a variable `result` (kind python)."""
    reads_input_again: bool = False
    """True if code (kind python) gets an input text with the JSON of an object or list as that value, and any other
    text without its last line break."""
    variables_hide_arguments: bool = False
    """True if a script (kind rhai) sees the command's variable, not its argument, where both have the same name."""
    says_no_result: bool = False
    """True if code without a result (kind python) is reported with a status and a message."""
    has_return_code: bool = False
    """True if a shell's exit code is named `returncode`, and the result also has all commands with their times."""
    sql_has_message: bool = False
    """True if SQL answers with a status and a message, and counts the rows changed by a write in `row_count`."""
    numbers_statements: bool = False
    """True if a result of DuckDB has the rows of each statement under the statement's number."""
    noop_names_step: bool = False
    """True if the result of kind noop has the step's name."""
    child_is_its_status: bool = False
    """True if the result of a child execution is its status document, not its result value."""
    start_takes_trace: bool = False
    """True if the request that starts a child takes a field `trace`. The notifications of the child's commands then
    have it (protocol/notification.md#message)."""
    sequence_is_flat: bool = False
    """True if the result of a sequence has the labels of its tasks as its only keys, failed tasks too."""
    bare_rule_holds: bool = False
    """True if a policy rule with an action, and without `when` and `else`, always holds. False if it never holds
    (protocol/tasks.md#policies)."""
