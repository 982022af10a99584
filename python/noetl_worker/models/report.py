"""What is reported to the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noetl_worker.models.case import Exit
from noetl_worker.models.wire import JsonValue


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
        """What stands for the result in an event (protocol/results.md#store).

        Args:
            answer: the store's, to the PUT: `ref`, `store`, `scope`, `bytes`, `sha256`, `expires_at`.
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
