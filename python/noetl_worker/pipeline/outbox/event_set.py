"""The terminal events of one command: the report of its outcome, and the requests that send the report to the plane.

An event is written as JSON only when it is sent. So a row of the outbox has the report, not the events. A result that
is too large for an event is first sent to the result store. The row has such a result too, so the command can give up
its slot while this request waits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.models.case import Exit
from noetl_worker.models.command import LoopPosition
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.wire import CommandId, Dialect, JsonValue, command_ids
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.rules import DialectRules, EventRequest
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
"""Attributes of an EventSet that are written to a row of the outbox unchanged."""
_REPORT_NAMES: Final = ("status", "context", "response", "reference", "error", "error_kind", "notes")
_UPLOAD: Final = ("name", "source_step", "preview", "beside")


def _ids_in(answer: JsonValue) -> tuple[int, ...]:
    """Return the event ids in the plane's answer. Return no ids for an answer without `event_ids`, such as a
    proxy's."""
    found = answer.get("event_ids") if isinstance(answer, dict) else None
    return tuple(one for one in found if type(one) is int) if isinstance(found, list) else ()


@dataclass(slots=True)
class EventSet:
    """The requests that send a command's terminal events, in order. `sent` is the number of them already accepted; a
    request to the result store does not count."""

    event_id: int
    """Id of the `command.issued` event, by which the command is claimed."""
    execution_id: int
    command_id: CommandId
    step: str
    worker_id: str
    """Name under which the worker has claimed the command."""
    server_url: str
    dialect: Dialect
    report: Report
    attempt: int = 1
    loop: LoopPosition | None = None
    with_start: bool = False
    """True if the terminal events include `command.started`, because the plane has not accepted this event yet."""
    sent: int = 0
    idempotency_key: str | None = None
    own_id: int = 0
    """Event id that the worker gives to the last event on the Rust plane. This event has a request of its own. The id
    is 0 until just before this request."""
    above: int = 0
    """Highest id that the plane has given to an event of this command. The worker chooses a higher id for its own event
    (`own_id`)."""
    rescues: str | None = None
    """Id of the event batch that this set replaces, because the plane stored the batch but will never process it."""
    created_at: float = 0.0
    """Time at which the set was made, in Unix seconds; 0 becomes the present time. Monotonic time would not outlive the
    process."""
    was_tried: bool = False
    """True if the next request may have been sent before, perhaps by a dead process. The answer "duplicate" then means
    that the plane has our event. The Python plane gets no second request to store a result, because the plane may still
    be processing the first request."""
    is_rescue: bool = False
    """True if the plane has confirmed that it will never process the batch that this set replaces (see `rescues`). The
    set is then sent even when late, without asking the plane who has the claim. This value is not in a row of the
    outbox: the worker that reads the row asks the plane about the batch again."""
    unstored: str = ""
    """Reason why the result store did not take the result, or ""."""
    kind: str = ""
    """Kind of the command's tool, for the log. It is "" if an earlier version wrote the row."""
    size: int = 0
    """Size in bytes of the request body that `body` has returned last."""
    rules: DialectRules = field(init=False, repr=False)
    requests: tuple[EventRequest, ...] = field(init=False)
    next_request: EventRequest = field(init=False)
    """The next request that sends events, or the last request if the plane has accepted all. A request that stores a
    result is sent before this request."""
    is_open: bool = field(init=False)
    """True if a request is left to be sent."""
    key: str = field(init=False)
    """Key of the set in the outbox: worker id and event id, which name the claim. A failure that replaces a refused
    outcome has the same key."""

    def __post_init__(self) -> None:
        self.created_at = self.created_at or time.time()
        self.above = max(self.above, self.event_id)
        self.rules = rules = RULES[self.dialect]
        self.requests = rules.requests(self.report, with_start=self.with_start)
        self.is_open = self.sent < len(self.requests)
        self.next_request = self.requests[self.sent if self.is_open else -1]
        self.key = f"{self.worker_id}/{self.event_id}"
        if self.idempotency_key is None:
            self.idempotency_key = rules.new_key(self.execution_id)

    # ── what is sent next ──

    @property
    def last_event(self) -> str:
        """Name of the last event in the next request, for metrics and messages; "result" if a result is stored next."""
        return self.next_request.last if self.report.upload is None else "result"

    @property
    def headers(self) -> dict[str, str]:
        return {"idempotency-key": self.idempotency_key} if self.idempotency_key is not None else {}

    def body(self) -> bytes:
        """Return the body of the next request of events. The body is the same at each try, because a plane may compare
        the bodies of two tries."""
        if self.rescues is None:
            made = self.rules.body(self, self.worker_id, self.report, self.next_request, self.own_id)
        else:
            made = self.rules.rescue(self, self.worker_id, self.report)
        self.size = len(made)
        return made

    @property
    def has_own_id(self) -> bool:
        """True if the worker, not the plane, chooses the id of the next event (Rust plane)."""
        return self.next_request.has_own_id and self.report.upload is None

    @property
    def next_address(self) -> str:
        """Address of the next request: the plane, or the plane's result store."""
        return self.server_url if self.report.upload is None else f"{self.server_url}#results"

    def log_ids(self) -> dict[str, object]:
        return {**command_ids(self), "kind": self.kind} if self.kind else command_ids(self)

    def shrink(self, max_bytes: int) -> bool:
        """Make the events smaller: move the result into a request to the result store. This request is sent first. If
        the store has already refused the result, report a failure without the data instead.

        Args:
            max_bytes: size in bytes of the largest batch that the plane takes.

        Returns:
            True if there was a result to move or to leave out.
        """
        if not self.unstored:
            return self.rules.shrink(self.report, self.step, max_bytes)
        text, self.unstored = self.unstored, ""
        if self.report.error is None:
            self._fail(text)
        else:  # the command has failed anyway: its error is reported without the data
            self.report.response = None
        return True

    # ── answers to the requests ──

    def accepted(self, answer: JsonValue) -> None:
        """Note that the plane or the result store has accepted the next request, and go on to the request after it.

        Args:
            answer: the answer to the request, as JSON. The result store's answer has a reference, which the events then
                have instead of the result. Any other answer has event ids, and the highest id is noted.
        """
        self.was_tried = False
        if self.report.upload is not None:
            self._stored(self.report.upload, answer)
            return
        self.is_open = self.sent + 1 < len(self.requests)
        if self.is_open:
            self.above = max(self.above, self.own_id, *_ids_in(answer))
            self.next_request = self.requests[self.sent + 1]
        self.sent, self.own_id, self.is_rescue = self.sent + 1, 0, False

    def _stored(self, upload: Upload, answer: Mapping[str, JsonValue]) -> None:
        self.report.reference = reference = upload.reference(answer)
        if upload.beside:
            self.report.context = {"data": {"_ref": reference["ref"]}, **upload.beside}
        self.report.upload = None

    def not_stored(self, reason: str) -> None:
        """Put the result into the event, because the result store does not take the result. On a plane whose events
        cannot have a large result, make the set a failure of the command.

        A preview in place of the result would be a wrong value that nobody notices.

        Args:
            reason: the store's answer, for the text of the failure.
        """
        upload, report = self.report.upload, self.report
        if upload is None:
            return
        self.was_tried, report.upload = False, None
        text = (
            f"the result of {len(upload.data)} bytes is too large for an event, and the result store of the control "
            f"plane does not take it: {reason}: let the step return less, or correct the store"
        )
        if not self.rules.inlines_unstored_results:
            self._fail(text)
        elif report.response is None:
            self.unstored = text
            report.response = json_text.embed(self.rules.whole_result(upload.data))

    def _fail(self, text: str) -> None:
        """Turn the report into a failure. Call this only while no terminal event of the set has been accepted."""
        report = self.report
        report.status, report.context = "error", {"status": "error", "error": text}
        report.response = report.context
        report.error, report.error_kind, report.exit = text, "resource", None
        self.requests = self.rules.requests(report, with_start=self.with_start)
        self.next_request = self.requests[self.sent]

    def copy_from_request(self, sent: int) -> EventSet:
        """Return a copy of the set for a plane that lost accepted requests. The copy sends request number `sent` and
        all later requests again.

        Args:
            sent: index of the first request to send again, from 0.
        """
        return replace(self, sent=sent, own_id=0, was_tried=False, is_rescue=self.rescues is not None)

    def rescue(self, batch: str) -> None:
        """Make this event set the replacement of a batch of events that the plane stored but will never process.

        Args:
            batch: the plane's id of that batch.
        """
        # Every process makes the same key, so the plane takes only one rescue, even if a worker was killed.
        self.idempotency_key = f"{self.execution_id}:rescue:{batch}"
        self.rescues, self.is_rescue, self.was_tried = batch, True, False

    # ── the row in the outbox ──

    def packed(self) -> tuple[bytes, bytes | None]:
        """Return the set as a row of the outbox, and the data that the result store has yet to get, or None."""
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
    def unpacked(cls, row: bytes, data: bytes | None = None) -> EventSet:
        """Return the event set in a row of the outbox. The set's next request counts as tried, because a dead process
        may have sent it.

        Args:
            row: the row that `packed` returned. Unknown keys are ignored: a later version may have written them.
            data: the data that `packed` returned.

        Raises:
            DocumentError: the bytes are not a row of an outbox, or all its requests were accepted.
        """
        try:
            return cls._from_row(json_text.loads(row), data)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error

    @classmethod
    def _from_row(cls, row: Mapping[str, Any], data: bytes | None) -> EventSet:
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
            kind=row.get("kind", ""),  # an earlier version wrote no kind
            report=report,
            loop=LoopPosition(*loop) if loop is not None else None,
            was_tried=True,
        )
        if not made.is_open:
            raise ValueError("the control plane has accepted all requests of this outcome")
        return made
