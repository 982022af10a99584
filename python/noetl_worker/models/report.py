"""The report of a command: its outcome, as the worker tells it to the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noetl_worker.models.case import Exit
from noetl_worker.models.wire import JsonValue


@dataclass(slots=True)
class Upload:
    """A result that is too large for an event. The worker stores it in the result store (protocol/results.md#store)."""

    name: str
    data: bytes
    """The result as compact JSON, without secrets."""
    source_step: str
    preview: JsonValue
    beside: Mapping[str, JsonValue] = field(default_factory=dict)
    """Entries of the event's context in addition to the reference to the stored result. On the Rust plane the command
    id is such an entry."""

    def reference(self, answer: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the reference to the stored result, which an event contains in place of the result
        (protocol/results.md#store).

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


@dataclass(slots=True)  # not frozen: one is made per command, and freezing costs time
class Report:
    """The outcome of a command, redacted and small enough for events. The worker builds the terminal events for either
    plane from this value."""

    status: str
    """Status of the tool (success, error, timeout), even if a case or the worker itself failed the command."""
    context: JsonValue
    """Value of `result.context` in the events: an object within the event budget, or None."""
    response: JsonValue = None
    """Data that the tool returned. None if the events contain only `reference`, which leads to the stored data. Events
    for the Python plane may contain both, because the plane's templates read the response."""
    reference: Mapping[str, JsonValue] | None = None
    """The reference to the stored result. None before the result store has the result."""
    upload: Upload | None = None
    """The large result to put into the result store before the events are sent; None once the store has it.

    It is dropped then to free its memory, because the events may wait for hours.
    """
    error: str | None = None
    """Reason of the failure, or None if the command succeeded."""
    error_kind: str | None = None
    """Kind of the failure (timeout, cancelled, configuration, ...: protocol/tasks.md#results), if it has one."""
    exit: Exit | None = None
    """The `exit` action of the case (when/then) that matched, or None."""
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    """Extra keys of the terminal event for people, such as `case` {index, action}, `cases_skipped`, `warnings`."""
