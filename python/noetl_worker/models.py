"""The frozen values that cross packages: what a stage hands to the next one, and nothing else.

Ids are Python ints (64-bit, exact) or, for `command_id`, whatever form was received: it is echoed unchanged
(the Rust plane compares strings, the Python plane parses both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from noetl_worker.marks import ALL, Marks
from noetl_worker.settlement import Outcome, OutcomeKind, Settlement

__all__ = [
    "AlreadyFinished",
    "AuthRefusedClaim",
    "CaseAction",
    "CaseDecision",
    "ClaimOutcome",
    "ClaimRefused",
    "Claimed",
    "Command",
    "CommandId",
    "Continue",
    "Dialect",
    "Envelope",
    "Exit",
    "Fail",
    "FitRules",
    "FittedResult",
    "Goto",
    "HeldByOther",
    "HeldByThisWorker",
    "JsonValue",
    "LoopPosition",
    "NotFound",
    "Outcome",
    "OutcomeKind",
    "Report",
    "Retry",
    "RetryLater",
    "SetVar",
    "Settlement",
    "SkippedCase",
    "ToolFailure",
    "ToolForm",
    "ToolResult",
    "ToolStatus",
    "Upload",
]

JsonValue: TypeAlias = Any
"""None, bool, int, float, str, list or dict with str keys: the only place where `Any` means JSON."""

CommandId: TypeAlias = int | str


class Dialect(str, Enum):
    """Which control plane issued the command; decides the form of every event."""

    PYTHON = "python"
    RUST = "rust"


class Envelope(NamedTuple):
    """A decoded command notification (protocol/notification.md#message). A NamedTuple: it is made once per message on
    the hot path."""

    execution_id: int
    event_id: int
    """Id of the `command.issued` event; the key of the claim."""
    command_id: CommandId
    step: str
    server_url: str
    """Where to claim and report; "" when the notification has none (then the configured URL holds)."""
    pool: str | None
    trace: Mapping[str, JsonValue] | None


@dataclass(frozen=True, slots=True)
class LoopPosition:
    """Which item of a loop a command is; the Python plane has it echoed into the events (protocol/command.md#loops)."""

    event_id: JsonValue = None
    iteration_index: JsonValue = None
    epoch_id: JsonValue = None


@dataclass(slots=True)  # not frozen: command.py makes it in two steps, and nothing else changes it
class Command:
    """A claimed command, references resolved: one tool call to make."""

    execution_id: int
    event_id: int
    command_id: CommandId
    step: str
    kind: str
    """Tool kind, as the plane's `action`."""
    config: Mapping[str, JsonValue]
    """The tool's own fields; a task sequence has {"tasks": [...]}."""
    input: Mapping[str, JsonValue]
    variables: Mapping[str, JsonValue]
    """`render_context` of the plane plus `action` and `node_name`."""
    cases: Sequence[JsonValue]
    meta: Mapping[str, JsonValue]
    server_url: str
    dialect: Dialect
    attempt: int = 1
    loop: LoopPosition | None = None
    catalog_id: str | None = None
    marks: Marks = ALL
    """What may be in its config, input and variables."""
    redacted: Sequence[str] = ()
    """Where in its variables the plane has put "[REDACTED]" in place of a value (templates/redacted.py)."""


# ── what a claim can come to (claim.py has the table) ───────────────────────────────────────────


@dataclass(slots=True)  # not frozen, as ToolResult
class Claimed:
    """Ours. `body` is the plane's answer."""

    body: Mapping[str, JsonValue]
    marks: Marks = ALL


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """The command, or its whole execution, is over: nothing is left to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """Another worker has it. It may die, so the message stays in the queue."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class HeldByThisWorker:
    """This very id has reported `command.started`: in flight here, or lost in a crash or a lost answer."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """A passing trouble: a lock, a busy or unreachable plane."""

    reason: str
    retry_after_s: float | None = None
    is_server_error: bool = False


@dataclass(frozen=True, slots=True)
class AuthRefusedClaim:
    """401 or 403: no claim will succeed before the credential setting is mended."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """Nobody knows the command (yet): a restored database, a replica behind, or poison."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """It can never be claimed like this: set it aside with the answer."""

    reason: str


ClaimOutcome: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | ClaimRefused
)


# ── tool results ────────────────────────────────────────────────────────────────────────────────


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
    """What a tool gives back; both a returned failure and a success."""

    status: ToolStatus
    data: JsonValue = None
    error: ToolFailure | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None

    @classmethod
    def success(cls, data: JsonValue = None, **fields: Any) -> ToolResult:
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
        error = ToolFailure(message=message, kind=kind, retryable=retryable, code=code)
        return cls(status=ToolStatus.ERROR, error=error, **fields)

    @classmethod
    def raised(cls, message: str, **fields: Any) -> ToolResult:
        """What a task of a list raised, with the `fields` of ToolFailure."""
        return cls(status=ToolStatus.ERROR, error=RaisedFailure(message, **fields))

    @classmethod
    def timed_out(cls, timeout_s: float, **fields: Any) -> ToolResult:
        error = ToolFailure(f"Execution timed out after {timeout_s:g} seconds", kind="timeout", retryable=True)
        return cls(status=ToolStatus.TIMEOUT, error=error, **fields)

    def lasting(self, duration_ms: int) -> ToolResult:
        """The same, with how long it took."""
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


@dataclass(frozen=True, slots=True)
class ToolForm:
    """What a plane's own worker gives for a tool: playbooks of that plane read it."""

    success_word: str
    """How the status of a success is printed in a rule of a policy."""
    missing_value: JsonValue
    """What a template gives for an undefined variable, in an input or a task."""
    error_has_status_code: bool
    """Whether `output.error` of an HTTP answer has it too."""
    not_of_http: frozenset[str]
    """Fields of an HTTP answer that it does not give."""
    field_list_is_json: bool
    """Whether a list in `params` or `form` (kind http) is sent as one JSON text, or its field for each item."""
    main_first: bool
    """Whether a function `main` counts before a variable `result` (kind python)."""
    reads_input_again: bool
    """Whether code (kind python) is given the object or list that a text of its input prints, and any other text
    without its last line break."""
    variables_hide_arguments: bool
    """Whether a script (kind rhai) sees a variable of the command in place of an argument of the same name."""
    says_no_result: bool
    """Whether code that leaves no result (kind python) is reported with a status and a message."""
    has_return_code: bool
    """Whether a shell's exit code is `returncode`, with all commands and their time beside it."""
    sql_has_message: bool
    """Whether SQL answers with a status and a message, and the rows that a write changed are its `row_count`."""
    numbers_statements: bool
    """Whether DuckDB gives each statement's rows under a number."""
    noop_names_step: bool
    child_is_its_status: bool
    """Whether a child execution is given as its status document, or as the value it left."""
    start_takes_trace: bool
    """Whether the start of a child has a field `trace`, which the notifications of its commands carry
    (protocol/notification.md#message)."""
    sequence_is_flat: bool
    """Whether the tasks of a sequence stand by their labels alone, those that failed too."""
    bare_rule_holds: bool
    """Whether a rule of a policy with an action and neither `when` nor `else` holds always, or never
    (protocol/tasks.md#policies)."""


# ── cases (protocol/conditions.md#cases) ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Continue:
    pass


@dataclass(frozen=True, slots=True)
class Exit:
    status: str
    data: JsonValue = None


@dataclass(frozen=True, slots=True)
class SetVar:
    name: str
    value: JsonValue


@dataclass(frozen=True, slots=True)
class Goto:
    step: str


@dataclass(frozen=True, slots=True)
class Retry:
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    message: str


CaseAction: TypeAlias = Continue | Exit | SetVar | Goto | Retry | Fail


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that did not parse; upstream drops it silently, we count it and say so."""

    index: int
    """Position in the list as written (not in the filtered one)."""
    reason: str


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """What `cases.py` found: the first match (or none) and what had to be skipped."""

    index: int | None = None
    """Position among the cases that parse, as upstream reports it; None when no case holds."""
    action: CaseAction | None = None
    skipped: tuple[SkippedCase, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretTexts:
    """The secret texts that are looked for in what leaves, by where they are taken out (`secrets.strength`)."""

    anywhere: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Where they are whole words, and never inside of a key."""
    message_words: tuple[str, ...] = ()
    """The same, in texts for people only."""

    @property
    def in_data(self) -> tuple[str, ...]:
        return self.anywhere + self.words

    @property
    def all(self) -> tuple[str, ...]:
        return self.in_data + self.message_words

    @property
    def in_messages(self) -> tuple[str, ...]:
        """Those that are looked for as whole words in a text for people."""
        return self.words + self.message_words


_ENVELOPE_BYTES: Final = 512
"""Room for what an event puts around the fitted result: the wrapper object and the command id."""


@dataclass(slots=True)  # not frozen, as ToolResult
class FitRules:
    """How a result is fitted to an event (engine call `fit_result`)."""

    max_bytes: int = 102_400
    """Inclusive budget of the compact JSON, in bytes (protocol/results.md#limits)."""
    preview_bytes: int = 4_096
    preview_depth: int = 8
    secrets: tuple[str, ...] = ()
    """Known secret values, replaced wherever they appear."""
    secret_words: tuple[str, ...] = ()
    """Known secret values that are replaced where they are whole words, and never inside of a key."""
    message_words: tuple[str, ...] = ()
    """The same for texts for people only (errors, reasons): `fit_result` does not look for them."""

    @classmethod
    def of(cls, known: SecretTexts, *, max_bytes: int) -> FitRules:
        """`max_bytes`: of the result in its event, with what is put around it."""
        return cls(
            max_bytes - _ENVELOPE_BYTES,
            secrets=known.anywhere,
            secret_words=known.words,
            message_words=known.message_words,
        )


class FittedResult(NamedTuple):
    """A result after one pass of redaction and measuring."""

    body: bytes
    """Compact JSON, redacted."""
    size: int
    redactions: int
    preview: bytes | None
    """A bounded summary, only when `size` is over the budget."""


# ── what is reported to the plane ───────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Upload:
    """A result over the event budget, for the result store (protocol/results.md#store)."""

    name: str
    data: bytes
    """Compact JSON, redacted."""
    source_step: str
    preview: JsonValue
    beside: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the event's context has beside the result, whatever stands for it (Rust plane: the command id)."""

    def reference(self, answer: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The reference of protocol/results.md#store, from what the store answered."""
        meta: dict[str, JsonValue] = {
            "bytes": answer.get("bytes", len(self.data)),
            "sha256": answer.get("sha256"),
            "media_type": "application/json",
            "content_type": "application/json",
        }
        reference: dict[str, JsonValue] = {
            "kind": "result_ref",
            "ref": answer.get("ref"),
            "store": answer.get("store"),
            "scope": answer.get("scope", "execution"),
            "meta": meta,
            "extracted": self.preview,
        }
        if answer.get("expires_at") is not None:
            reference["expires_at"] = answer["expires_at"]
        return reference


@dataclass(slots=True)  # not frozen, as ToolResult
class Report:
    """How a command ended, fitted and redacted: all that a dialect needs to write its terminal events."""

    status: str
    """Tool status word (success, error, timeout), also when a case or the worker itself failed the command."""
    context: JsonValue
    """`result.context` of the events: an object within the budget; None where there is none."""
    response: JsonValue = None
    """The tool's own data; beside a reference only that of some for the Python plane."""
    reference: Mapping[str, JsonValue] | None = None
    """Where the result is, in the store's words, once the store has it."""
    upload: Upload | None = None
    """What has to be stored before the events are sent; let go of once the store has answered: the events may still
    wait for hours."""
    error: str | None = None
    """Set: the command failed, and this text says why."""
    error_kind: str | None = None
    """Of a failure that the worker found (timeout, cancelled, configuration, ...: protocol/tasks.md#results)."""
    exit: Exit | None = None
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """Extra keys of the terminal event: `case` {index, action}, `cases_skipped`, `warnings`."""
    is_changed_by_store: bool = False
    """Whether later steps see another value than this one, for which an event has no room beside its reference."""
