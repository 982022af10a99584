"""What a tool gives, and in which form its plane reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from noetl_worker.models.wire import JsonValue


class ToolStatus(str, Enum):
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """Why a tool's status is not success (taxonomy of protocol/tasks.md#results)."""

    message: str
    kind: str = "unknown"
    retryable: bool = False
    code: str | None = None


@dataclass(frozen=True, slots=True)
class RaisedFailure(ToolFailure):
    """What a task of a list raised: unless its rules go on, it fails the command on each plane, as it does alone."""


@dataclass(slots=True)  # not frozen: two are made for each command; nothing changes one
class ToolResult:
    """What a tool returns; both a returned failure and a success."""

    status: ToolStatus
    data: JsonValue = None
    error: ToolFailure | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None

    @classmethod
    def success(cls, data: JsonValue = None, **fields: Any) -> ToolResult:
        """The tool has done its work.

        Args:
            data: what later steps see as the step's result.
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
        """A failure that the playbook may handle: an exit code, an HTTP status.

        Args:
            message: says what failed, with which value, and what to do.
            kind: a word of protocol/tasks.md#results: `auth`, `connection`, `timeout`, ...
            retryable: whether the same call may succeed later.
            code: of the tool's own, for rules: an HTTP status, a SQLSTATE.
            fields: `data`, `stdout`, `stderr`, `exit_code`, `duration_ms`.
        """
        error = ToolFailure(message=message, kind=kind, retryable=retryable, code=code)
        return cls(status=ToolStatus.ERROR, error=error, **fields)

    @classmethod
    def raised(cls, message: str, **fields: Any) -> ToolResult:
        """What a task of a list raised.

        Args:
            message: its text.
            fields: the other ones of ToolFailure.
        """
        return cls(status=ToolStatus.ERROR, error=RaisedFailure(message, **fields))

    @classmethod
    def timed_out(cls, timeout_s: float, *, retryable: bool = True, **fields: Any) -> ToolResult:
        """The tool was ended by its timeout.

        Args:
            timeout_s: which one, in seconds.
            retryable: whether the same call may be made again.
            fields: `data`, `stdout`, `stderr`, `exit_code`, `duration_ms`, as far as the tool had come.
        """
        error = ToolFailure(f"Execution timed out after {timeout_s:g} seconds", kind="timeout", retryable=retryable)
        return cls(status=ToolStatus.TIMEOUT, error=error, **fields)

    def lasting(self, duration_ms: int) -> ToolResult:
        """The same, with how long it took.

        Args:
            duration_ms: in milliseconds.
        """
        return ToolResult(self.status, self.data, self.error, self.stdout, self.stderr, self.exit_code, duration_ms)

    def to_json(self) -> dict[str, JsonValue]:
        """The wire's ToolResult (protocol/tasks.md#results): `status` always, the others only when set; `error` is a
        string."""
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
    """What a plane's own worker gives for a tool: playbooks of that plane read it."""

    success_word: str
    """How the status of a success is printed in a rule of a policy."""
    missing_value: JsonValue = None
    """What a template gives for an undefined variable, in an input or a task."""
    error_has_status_code: bool = False
    """Whether `output.error` of an HTTP answer has it too."""
    not_of_http: frozenset[str]
    """Fields of an HTTP answer that it does not give."""
    field_list_is_json: bool = False
    """Whether a list in `params` or `form` (kind http) is sent as one JSON text, or its field for each item."""
    main_first: bool = False
    """Whether a function `main` counts before a variable `result` (kind python)."""
    reads_input_again: bool = False
    """Whether code (kind python) is given the object or list that a text of its input prints, and any other text
    without its last line break."""
    variables_hide_arguments: bool = False
    """Whether a script (kind rhai) sees a variable of the command in place of an argument of the same name."""
    says_no_result: bool = False
    """Whether code that leaves no result (kind python) is reported with a status and a message."""
    has_return_code: bool = False
    """Whether a shell's exit code is `returncode`, with all commands and their time beside it."""
    sql_has_message: bool = False
    """Whether SQL answers with a status and a message, and the rows that a write changed are its `row_count`."""
    numbers_statements: bool = False
    """Whether DuckDB gives each statement's rows under a number."""
    noop_names_step: bool = False
    child_is_its_status: bool = False
    """Whether a child execution is given as its status document, or as the value it left."""
    start_takes_trace: bool = False
    """Whether the start of a child has a field `trace`, which the notifications of its commands carry
    (protocol/notification.md#message)."""
    sequence_is_flat: bool = False
    """Whether the tasks of a sequence stand by their labels alone, those that failed too."""
    bare_rule_holds: bool = False
    """Whether a rule of a policy with an action and neither `when` nor `else` holds always, or never
    (protocol/tasks.md#policies)."""
