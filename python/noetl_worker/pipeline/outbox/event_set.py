"""The terminal events of one command on their way: the report, and what has been sent of it so far.

Nothing is rendered before it is sent, and the row of the outbox is this object. A result that is too large for an
event travels in front of them, to the result store: so it is on disk, and free of its slot, as soon as the events
would be.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from noetl_worker.models.case import Exit
from noetl_worker.models.command import LoopPosition
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.wire import CommandId, Dialect, JsonValue, ids_of
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.rules import DialectRules, Part
from noetl_worker.text import json_text

__all__ = ["EventSet"]

_SET_NAMES: Final = (
    "event_id",
    "execution_id",
    "command_id",
    "step",
    "worker_id",
    "server_url",
    "attempt",
    "with_start",
    "sent",
    "idempotency_key",
    "own_id",
    "rescues",
    "created_at",
)
"""What stands in a row as it is here."""
_REPORT_NAMES: Final = ("status", "context", "response", "reference", "error", "error_kind", "notes")
_UPLOAD: Final = ("name", "source_step", "preview", "beside")


def _ids_in(answer: JsonValue) -> tuple[int, ...]:
    """Of the events that were posted; none where the answer is not that of a plane."""
    found = answer.get("event_ids") if isinstance(answer, dict) else None
    return tuple(one for one in found if type(one) is int) if isinstance(found, list) else ()


def unstored_text(upload: Upload, reason: str) -> str:
    return (
        f"the result of {len(upload.data)} bytes is too large for an event, and the result store of the control plane "
        f"does not take it: {reason}"
    )


@dataclass(slots=True)
class EventSet:
    """Requests that must be accepted in this order; `sent` counts those that were."""

    event_id: int
    """Of `command.issued`: what the claim is asked with."""
    execution_id: int
    command_id: CommandId
    step: str
    worker_id: str
    """The name that holds the claim."""
    server_url: str
    dialect: Dialect
    report: Report
    attempt: int = 1
    loop: LoopPosition | None = None
    with_start: bool = False
    """Whether the start travels with the end."""
    sent: int = 0
    idempotency_key: str | None = None
    own_id: int = 0
    """Of the event that is sent alone (Rust plane). 0 until it is about to be sent."""
    above: int = 0
    """What that id must be above: the ids that the plane has given to the events of this command."""
    rescues: str | None = None
    """The batch that a rescue is sent in place of: the plane stored that one and never processed it."""
    created_at: float = 0.0
    """Seconds since 1970; 0: now. It outlives the process, so no monotonic clock will do."""
    was_tried: bool = False
    """The next request was sent before, here or by the process that wrote the row: a duplicate key is then our own
    event; a result may still be with the store."""
    is_rescue: bool = False
    """The plane has confirmed that, and gives the command to nobody: sent whatever a claim would say. Not on disk: who
    reads a row asks the plane."""
    unstored: str = ""
    """Why the result store did not take the result."""
    kind: str = ""
    """Of its tool, for the log; "" in a row that an earlier version wrote."""
    size: int = 0
    """Bytes of the last request of events."""
    rules: DialectRules = field(init=False, repr=False)
    parts: tuple[Part, ...] = field(init=False)
    part: Part = field(init=False)
    """What is sent next, once nothing has to be stored any more; the last one when all is accepted."""
    is_open: bool = field(init=False)
    key: str = field(init=False)
    """One set a claim: a failure that replaces a refused outcome has the same key."""

    def __post_init__(self) -> None:
        self.created_at = self.created_at or time.time()
        self.above = max(self.above, self.event_id)
        self.rules = rules = RULES[self.dialect]
        self.parts = rules.parts(self.report, with_start=self.with_start)
        self.is_open = self.sent < len(self.parts)
        self.part = self.parts[self.sent if self.is_open else -1]
        self.key = f"{self.worker_id}/{self.event_id}"
        if self.idempotency_key is None:
            self.idempotency_key = rules.new_key(self.execution_id)

    # ── what is sent next ──

    @property
    def last_event(self) -> str:
        """Name of the last event of the next request, for metrics and messages."""
        return self.part.last if self.report.upload is None else "result"

    @property
    def headers(self) -> dict[str, str]:
        return {"idempotency-key": self.idempotency_key} if self.idempotency_key is not None else {}

    def body(self) -> bytes:
        """The next request of events: the same bytes at every try, as far as the plane has to distinguish tries."""
        if self.rescues is None:
            made = self.rules.body(self, self.worker_id, self.report, self.part, self.own_id)
        else:
            made = self.rules.rescue(self, self.worker_id, self.report)
        self.size = len(made)
        return made

    @property
    def has_own_id(self) -> bool:
        """Whether the plane takes the next event's id from us."""
        return self.part.has_own_id and self.report.upload is None

    @property
    def place(self) -> str:
        """Where it has to go next."""
        return self.server_url if self.report.upload is None else f"{self.server_url}#results"

    def who(self) -> dict[str, object]:
        return {**ids_of(self), "kind": self.kind} if self.kind else ids_of(self)

    def cut(self, max_bytes: int) -> bool:
        """Leave the result out of the events: it is stored first.

        Args:
            max_bytes: what the plane takes in one batch.

        Returns:
            Whether there was one; what the store did not take fails its command, which says so.
        """
        if not self.unstored:
            return self.rules.cut(self.report, self.step, max_bytes)
        text, self.unstored = self.unstored, ""
        if self.report.error is None:
            self._fail(text)
        else:  # of a failure its text is what counts
            self.report.response = None
        return True

    # ── what becomes of it ──

    def accepted(self, answer: JsonValue) -> None:
        """The next request is accepted.

        Args:
            answer: the plane's, as JSON. Of the result store it is an object, which goes into the events; of what the
                plane answers for events, their ids are kept.
        """
        self.was_tried = False
        if self.report.upload is not None:
            self._stored(self.report.upload, answer)
            return
        self.is_open = self.sent + 1 < len(self.parts)
        if self.is_open:
            self.above = max(self.above, self.own_id, *_ids_in(answer))
            self.part = self.parts[self.sent + 1]
        self.sent, self.own_id, self.is_rescue = self.sent + 1, 0, False

    def _stored(self, upload: Upload, answer: Mapping[str, JsonValue]) -> None:
        self.report.reference = reference = upload.reference(answer)
        if upload.beside:
            self.report.context = {"data": {"_ref": reference["ref"]}, **upload.beside}
        self.report.upload = None

    def not_stored(self, reason: str) -> None:
        """The store does not take the result: it goes into the event itself, where that has room for it.

        Where it has none the command fails: a preview in place of a result is a wrong value that nobody sees.

        Args:
            reason: what the store said, for the failure's text.
        """
        upload, report = self.report.upload, self.report
        if upload is None:
            return
        self.was_tried, report.upload = False, None
        if not self.rules.inlines_unstored_results:
            self._fail(unstored_text(upload, reason))
        elif report.response is None:
            self.unstored = unstored_text(upload, reason)
            report.response = json_text.embed(self.rules.whole_of(upload.data))

    def _fail(self, text: str) -> None:
        """The command failed after all; nothing of its end was sent before."""
        report = self.report
        report.status, report.context = "error", {"status": "error", "error": text}
        report.response = report.context
        report.error, report.error_kind, report.exit = text, "resource", None
        self.parts = self.rules.parts(report, with_start=self.with_start)
        self.part = self.parts[self.sent]

    def again(self, sent: int) -> EventSet:
        """As it was before the plane took a request.

        Args:
            sent: that request's number, from 0.
        """
        return replace(self, sent=sent, own_id=0, was_tried=False, is_rescue=self.rescues is not None)

    def rescue(self, batch: str) -> None:
        """The plane has stored a batch and never processes it: something else is sent in its place.

        Args:
            batch: the id that the plane gave it.
        """
        # the same from whoever sends it: a worker may be killed between the rescue and the note that it is done
        self.idempotency_key = f"{self.execution_id}:rescue:{batch}"
        self.rescues, self.is_rescue, self.was_tried = batch, True, False

    # ── its row ──

    def packed(self) -> tuple[bytes, bytes | None]:
        """The row of the outbox; with what goes to the result store beside it, as it is."""
        report, upload, loop = self.report, self.report.upload, self.loop
        row: dict[str, object] = {"dialect": self.dialect.value, "kind": self.kind}
        row.update((name, getattr(self, name)) for name in _SET_NAMES)
        row["loop"] = [loop.event_id, loop.iteration_index, loop.epoch_id] if loop is not None else None
        fields: dict[str, object] = {name: getattr(report, name) for name in _REPORT_NAMES}
        fields["exit"] = [report.exit.status, report.exit.data] if report.exit is not None else None
        if upload is not None:
            fields["upload"] = {name: getattr(upload, name) for name in _UPLOAD}
        row["report"] = fields
        return json_text.dumps(row), upload.data if upload is not None else None

    @classmethod
    def unpacked(cls, row: Mapping[str, Any], data: bytes | None) -> EventSet:
        """The set of a row. Its next request counts as tried: it was, or it was about to be.

        Args:
            row: as `packed` gave it, read from JSON. Keys that are not known are left out: a later worker may have
                written more.
            data: what goes to the result store beside it; None where nothing does.

        Raises:
            KeyError: it lacks a field, or has `data` where it should not.
            TypeError: a field has another type.
            ValueError: a field has no such value, or nothing of it is left to be sent.
        """
        fields, loop = row["report"], row["loop"]
        if ("upload" in fields) is not (data is not None):
            raise KeyError("data")
        report = Report(**{name: fields[name] for name in _REPORT_NAMES})
        if fields["exit"] is not None:
            report.exit = Exit(*fields["exit"])
        if data is not None:
            report.upload = Upload(data=data, **{name: fields["upload"][name] for name in _UPLOAD})
        made = cls(
            **{name: row[name] for name in _SET_NAMES},
            dialect=Dialect(row["dialect"]),
            kind=row.get("kind", ""),  # a version before this one wrote none
            report=report,
            loop=LoopPosition(*loop) if loop is not None else None,
            was_tried=True,
        )
        if not made.is_open:
            raise ValueError("nothing of it is left to be sent")
        return made
