"""The frozen values that cross rooms: what a stage hands to the next one, and nothing else.

Ids are Python ints (64-bit, exact) or, for `command_id`, whatever form was received: it is echoed unchanged
(the Rust plane compares strings, the Python plane parses both).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "AlreadyFinished",
    "AuthRefusedClaim",
    "CaseAction",
    "CaseDecision",
    "ClaimOutcome",
    "Claimed",
    "Command",
    "CommandId",
    "Continue",
    "Dialect",
    "Envelope",
    "Event",
    "EventRequest",
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
    "Refused",
    "Report",
    "Retry",
    "RetryLater",
    "SetVar",
    "Settlement",
    "SkippedCase",
    "ToolFailure",
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
    """A decoded command notification (wire.md 2). A NamedTuple: it is made once per message on the hot path."""

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
    """Loop bookkeeping of the Python plane, echoed into the events (wire.md 4.8)."""

    event_id: JsonValue = None
    iteration_index: JsonValue = None
    epoch_id: JsonValue = None


@dataclass(frozen=True, slots=True)
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


# ── what a claim can come to (claim.py has the table) ───────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Claimed:
    """Ours. `body` is the plane's whole answer."""

    body: Mapping[str, JsonValue]


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
class Refused:
    """It can never be claimed like this: set it aside with the answer."""

    reason: str


ClaimOutcome: TypeAlias = (
    Claimed | AlreadyFinished | HeldByOther | HeldByThisWorker | RetryLater | AuthRefusedClaim | NotFound | Refused
)


# ── tool results ────────────────────────────────────────────────────────────────────────────────


class ToolStatus(str, Enum):
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """Why a tool's status is not success (taxonomy of tools.md 5.6)."""

    message: str
    kind: str = "unknown"
    retryable: bool = False
    code: str | None = None


@dataclass(frozen=True, slots=True)
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
    def timed_out(cls, timeout_s: float, **fields: Any) -> ToolResult:
        error = ToolFailure(f"Execution timed out after {timeout_s:g} seconds", kind="timeout", retryable=True)
        return cls(status=ToolStatus.TIMEOUT, error=error, **fields)

    def to_json(self) -> dict[str, JsonValue]:
        """The wire's ToolResult (wire.md 4.3): `status` always, the others only when set; `error` is a string."""
        whole: dict[str, JsonValue] = {"status": self.status.value}
        if self.error is not None:
            whole["error"] = self.error.message
        for name in ("data", "stdout", "stderr", "exit_code", "duration_ms"):
            value = getattr(self, name)
            if value is not None:
                whole[name] = value
        return whole


# ── cases (conditions.md 1) ─────────────────────────────────────────────────────────────────────


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
    """A case that did not parse; upstream drops it in silence, we count it and say so."""

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
class FitRules:
    """How a result is fitted to an event (engine call `fit_result`)."""

    max_bytes: int = 102_400
    """Inclusive budget of the compact JSON, in bytes (wire.md 9.4, 4.9)."""
    preview_bytes: int = 4_096
    preview_depth: int = 8
    secrets: tuple[str, ...] = ()
    """Known secret values, replaced wherever they appear."""


class FittedResult(NamedTuple):
    """A result after one pass of redaction and measuring."""

    body: bytes
    """Compact JSON, redacted."""
    size: int
    redactions: int
    preview: bytes | None
    """A bounded summary, only when `size` is over the budget."""

    def fits(self, rules: FitRules) -> bool:
        return self.size <= rules.max_bytes


# ── the end of a notification ───────────────────────────────────────────────────────────────────


class Settlement(str, Enum):
    """The three answers JetStream knows for a message that is done with."""

    ACK = "ack"
    NAK = "nak"
    TERM = "term"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one notification ended: the answer to JetStream and what to count."""

    settlement: Settlement
    reason: str
    delay_s: float = 0.0
    """Only for nak; never zero but at shutdown."""
    dead_letter: bool = False
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


# ── what the plane is told ──────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Upload:
    """A result over the event budget, for the result store (wire.md 3.9)."""

    name: str
    data: bytes
    """Compact JSON, redacted. Let go of once the store has answered: the events may still wait for hours."""
    source_step: str
    preview: JsonValue
    beside: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the event's context has beside the result, whatever stands for it (Rust plane: the command id)."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Stands in the events for what the store is still to answer; no value of a playbook can be the same by chance."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a command ended, fitted and redacted: all that a dialect needs to write its terminal events."""

    status: str
    """Tool status word (success, error, timeout), also when a case or the worker itself failed the command."""
    context: JsonValue
    """`result.context` of the events: an object within the budget."""
    response: JsonValue = None
    """The tool's own data, whole; None with a reference."""
    reference: Mapping[str, JsonValue] | None = None
    """Where the whole result is, in the store's words; `{"ref": upload.mark}` until the store has it."""
    upload: Upload | None = None
    """What has to be stored before the events are sent."""
    error: str | None = None
    """Set: the command failed, and this text says why."""
    error_kind: str | None = None
    """Of a failure that the worker found (timeout, cancelled, configuration, ...: tools.md 5.6)."""
    exit: Exit | None = None
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """Extra keys of the terminal event: `case` {index, action}, `cases_skipped`, `warnings`."""

    def without_reference(self) -> Report:
        """What is told when the store refuses the upload: the preview, which says that it is one, and why."""
        if self.upload is None:
            return self
        size, preview = len(self.upload.data), self.upload.preview
        cut = {
            "preview": preview,
            "_truncated": True,
            "_bytes": size,
            "_error": self.upload.mark,
            **self.upload.beside,
        }
        return replace(self, context=cut, response=cut, reference=None, upload=None)


@dataclass(frozen=True, slots=True)
class Event:
    """One event before it is put into a plane's form."""

    name: str
    payload: Mapping[str, JsonValue]
    status: str
    """Status word of the Rust plane's envelope; the Python plane derives its own."""
    created_at: str
    meta: Mapping[str, JsonValue] | None = None
    actionable: bool = False


@dataclass(frozen=True, slots=True)
class EventRequest:
    """One POST: events that are accepted or refused together."""

    path: str
    events: tuple[Event, ...]
    idempotency_key: str | None = None
