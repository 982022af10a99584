"""Rows of the outbox as version 1 wrote them: with the requests in them, as they were to be sent.

They are sent as they are. This file goes one release after the last worker that writes such rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noetl_worker import json_text
from noetl_worker.models.command import LoopPosition
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.outbox.event_set import EventSet
from noetl_worker.plane.python.rules import payload_of_result
from noetl_worker.plane.rules import Part

__all__ = ["read"]

_NAMES = ("event_id", "execution_id", "command_id", "step", "worker_id", "server_url", "created_at")
_UPLOAD = ("name", "source_step", "preview", "beside")
_OF_LOOP = "__loop_epoch_id"


def read(row: Mapping[str, Any], data: bytes | None) -> EventSet:
    """Raises KeyError, IndexError, TypeError or ValueError for what is no row."""
    requests, store = list(row["requests"]), row.get("store")
    if (store is None) is not (data is None):
        raise KeyError("data")
    first = requests[0]
    report = Report("", None)
    made = _WrittenBefore(
        **{name: row[name] for name in _NAMES},
        dialect=Dialect(row["dialect"]),
        report=report,
        loop=LoopPosition() if any(_OF_LOOP in (event.get("meta") or {}) for event in _events(requests)) else None,
        idempotency_key=first["key"],
        own_id=first["body"].get("event_id") or 0,
        rescues=first.get("rescues"),
        was_tried=True,
        requests=requests,
        parts=tuple(map(_part, requests)),
    )
    if store is not None and data is not None:
        report.upload = Upload(data=data, **{name: store[name] for name in _UPLOAD})
        made.mark, made.otherwise = store["mark"], store["otherwise"]
    return made


@dataclass(slots=True)
class _WrittenBefore(EventSet):
    """A set whose requests are made already."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    otherwise: list[dict[str, Any]] = field(default_factory=list)
    """The requests for a store that refuses the result."""
    mark: str = ""
    """Stands in the events for what the store is still to answer."""

    def body(self) -> bytes:
        if not self.requests:
            return EventSet.body(self)
        body = self.requests[0]["body"]
        return json_text.dumps({**body, "event_id": self.own_id} if self.part.has_own_id else body)

    def accepted(self, answer: JsonValue) -> None:
        upload = self.report.upload
        if upload is None:
            EventSet.accepted(self, answer)
            self.requests[:1] = []
            return
        self.was_tried, reference = False, upload.reference(answer)
        # The reference object first: the mark is in it.
        mark_object = json_text.dumps({"ref": self.mark})
        _fill(self.requests, {mark_object: reference, json_text.dumps(self.mark): reference["ref"]})
        self.report.upload = None

    def not_stored(self, reason: str) -> None:
        upload, self.was_tried = self.report.upload, False
        if upload is None:
            return
        if not self.rules.inlines_unstored_results:  # its other requests have a preview in place of the result
            self.with_start = any(event["name"] == "command.started" for event in _events(self.requests))
            self.requests = []
            EventSet.not_stored(self, reason)
            return
        self.requests, self.report.upload = self.otherwise, None
        self.idempotency_key = self.requests[0]["key"]
        _fill(self.requests, {json_text.dumps(self.mark): reason})
        for event in _events(self.requests):
            if event["payload"].get("response") == f"{self.mark}:whole":
                event["payload"]["response"] = json_text.embed(upload.data)

    @property
    def can_be_rescued(self) -> bool:
        return self.loop is None and any(event["name"] == "step.exit" for event in _events(self.requests[:1]))

    def rescue(self, batch: str) -> None:
        EventSet.rescue(self, batch)
        events = _events(self.requests[:1])
        leave = [{**event, "actionable": True} for event in events if event["name"] == "step.exit"]
        responses = [event["payload"]["response"] for event in events if "response" in event["payload"]]
        for event in leave if responses else ():
            event["payload"] = {**event["payload"], **payload_of_result(event["payload"]["result"], responses[0])}
        self.requests[0] = {**self.requests[0], "body": {**self.requests[0]["body"], "events": leave}}

    def packed(self) -> tuple[bytes, bytes | None]:
        """As version 1 wrote it: a worker that goes back to it reads what is left."""
        if not self.requests:
            return EventSet.packed(self)
        first = self.requests[0]
        if self.part.has_own_id:
            first["body"]["event_id"] = self.own_id
        first["key"], first["rescues"] = self.idempotency_key, self.rescues
        row: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        row.update(dialect=self.dialect.value, requests=self.requests)
        upload = self.report.upload
        if upload is not None:
            named = {name: getattr(upload, name) for name in _UPLOAD}
            row["store"] = {**named, "mark": self.mark, "otherwise": self.otherwise}
        return json_text.dumps(row), upload.data if upload is not None else None


def _part(request: Mapping[str, Any]) -> Part:
    body = request["body"]
    names = [str(event["name"]) for event in body.get("events", ())] or [str(body.get("event_type"))]
    return Part.of(request["path"], *names, has_own_id="event_id" in body)


def _events(requests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [event for request in requests for event in request["body"].get("events", ())]


def _fill(requests: Iterable[dict[str, Any]], values: Mapping[bytes, JsonValue]) -> None:
    """Put values where their marks stand."""
    for request in requests:
        text = json_text.dumps(request["body"])
        for mark, value in values.items():
            text = text.replace(mark, json_text.dumps(value))
        request["body"] = json_text.loads(text)
