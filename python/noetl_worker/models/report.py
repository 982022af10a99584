"""The report of a command: the outcome that the worker tells the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noetl_worker.models.case import Exit
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)
class Upload:
    """A result over the event budget, to be stored in the result store (protocol/results.md#store)."""

    name: str
    data: bytes
    """Compact JSON, redacted."""
    source_step: str
    preview: JsonValue
    beside: Mapping[str, JsonValue] = field(default_factory=dict)
    """Keys that the event's context has in addition to the reference (on the Rust plane the command id)."""

    def reference(self, answer: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the reference that stands for the result in an event (protocol/results.md#store).

        Args:
            answer: the store's answer to the PUT: `ref`, `store`, `scope`, `bytes`, `sha256`, `expires_at`.
        """
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
    """The outcome of a command, fitted and redacted: everything a dialect needs to write the terminal events."""

    status: str
    """Tool status word (success, error, timeout), also when a case or the worker itself failed the command."""
    context: JsonValue
    """`result.context` of the events: an object within the budget, or None."""
    response: JsonValue = None
    """The tool's own data. None if there is a reference, except for some results on the Python plane."""
    reference: Mapping[str, JsonValue] | None = None
    """The reference to the stored result, once the store has it."""
    upload: Upload | None = None
    """The result to store before the events are sent. It is freed once the store has answered, because the events may
    still wait for hours."""
    error: str | None = None
    """Reason of the failure; None if the command succeeded."""
    error_kind: str | None = None
    """Kind of a failure that the worker found (timeout, cancelled, configuration, ...: protocol/tasks.md#results)."""
    exit: Exit | None = None
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """Extra keys of the terminal event: `case` {index, action}, `cases_skipped`, `warnings`."""
