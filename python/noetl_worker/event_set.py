"""The terminal events of one command, ready to send and ready to be kept on disk: what the outbox has a row of.

A result that is too large for an event travels in front of them, to the result store: so it is on disk, and free of
its slot, as soon as the events would be.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from noetl_worker import json_text
from noetl_worker.control_plane.dialects import SINGLE
from noetl_worker.errors import DocumentError
from noetl_worker.models import CommandId, Dialect, JsonValue, Upload

__all__ = ["EventSet", "SetRequest", "StoreRequest"]

_UPLOAD: Final = ("name", "source_step", "preview", "mark", "beside")
"""Of an Upload, what stands in the row."""


@dataclass(slots=True)
class SetRequest:
    """One POST of a set."""

    path: str
    body: dict[str, Any]
    idempotency_key: str | None = None
    was_tried: bool = False
    """Sent before, here or by the process that wrote the row: a duplicate key is then our own event."""
    is_rescue: bool = False
    """The plane has our rows already, and gives the command to nobody: sent whatever a claim would say."""

    @property
    def last_event(self) -> str:
        """Name of the last event, for metrics and messages."""
        events = self.body.get("events")
        return str(events[-1]["name"] if events else self.body.get("event_type"))

    @property
    def headers(self) -> dict[str, str]:
        return {"idempotency-key": self.idempotency_key} if self.idempotency_key else {}

    @property
    def has_own_id(self) -> bool:
        """Whether the plane takes this event's id from us (a single event of the Rust plane)."""
        return self.path == SINGLE and "event_id" in self.body

    def rescue(self) -> SetRequest | None:
        """`step.exit` alone, actionable, under a new key: the one rescue seen to work (wire.md 9.4)."""
        leave = [{**event, "actionable": True} for event in self.body.get("events", ()) if event["name"] == "step.exit"]
        key = f"{self.body.get('worker_id')}:{self.body.get('execution_id')}:{uuid.uuid4().hex}"
        return SetRequest(self.path, {**self.body, "events": leave}, key, is_rescue=True) if leave else None


@dataclass(slots=True)
class StoreRequest:
    """The PUT of a result whose reference the events of the set carry."""

    upload: Upload
    otherwise: list[SetRequest]
    """The events for a store that refuses it: with a preview in place of the reference."""
    last_event = "result"
    is_rescue = False

    def reference(self, told: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The reference of wire.md 3.9, from what the store answered."""
        upload = self.upload
        meta: dict[str, JsonValue] = {
            "bytes": told.get("bytes", len(upload.data)),
            "sha256": told.get("sha256"),
            "media_type": "application/json",
            "content_type": "application/json",
        }
        reference: dict[str, JsonValue] = {
            "kind": "result_ref",
            "ref": told.get("ref"),
            "store": told.get("store"),
            "scope": told.get("scope", "execution"),
            "meta": meta,
            "extracted": upload.preview,
        }
        if told.get("expires_at") is not None:
            reference["expires_at"] = told["expires_at"]
        return reference

    def packed(self) -> dict[str, Any]:
        upload = self.upload
        names = {name: getattr(upload, name) for name in _UPLOAD}
        return {**names, "otherwise": _packed(self.otherwise)}

    @classmethod
    def unpacked(cls, row: Mapping[str, Any], data: bytes) -> StoreRequest:
        return cls(Upload(data=data, **{name: row[name] for name in _UPLOAD}), _unpacked(row["otherwise"]))


@dataclass(slots=True)
class EventSet:
    """Requests that must be accepted in this order; an accepted one leaves it."""

    event_id: int
    """Of `command.issued`: what the claim is asked with."""
    execution_id: int
    command_id: CommandId
    step: str
    worker_id: str
    """The name that holds the claim."""
    server_url: str
    dialect: Dialect
    requests: list[SetRequest]
    store: StoreRequest | None = None
    """What has to be accepted before them."""
    created_at: float = field(default_factory=time.time)
    """Seconds since 1970: it outlives the process, so no monotonic clock will do."""

    @property
    def key(self) -> str:
        """One set a claim: a failure that replaces a refused outcome has the same key."""
        return f"{self.worker_id}/{self.event_id}"

    @property
    def is_open(self) -> bool:
        return self.store is not None or bool(self.requests)

    @property
    def next(self) -> SetRequest | StoreRequest:
        return self.store or self.requests[0]

    @property
    def place(self) -> str:
        """Where it has to go next."""
        return self.server_url if self.store is None else f"{self.server_url}#results"

    def accepted(self, told: JsonValue) -> None:
        """The next one is accepted. What the store tells of a result (an object) goes into the events."""
        if self.store is None:
            self.requests.pop(0)
            return
        upload, reference = self.store.upload, self.store.reference(told)
        # The whole reference first: the mark is in it.
        _fill(
            self.requests,
            {json_text.dumps({"ref": upload.mark}): reference, json_text.dumps(upload.mark): reference["ref"]},
        )
        self._let_go()

    def not_stored(self, reason: str) -> None:
        """The store refuses the result for good: the preview is better than nothing."""
        if self.store is not None:
            self.requests = self.store.otherwise
            _fill(self.requests, {json_text.dumps(self.store.upload.mark): reason})
            self._let_go()

    def _let_go(self) -> None:
        if self.store is not None:
            self.store.upload.data = b""  # the report that it came with lives for as long as the set
            self.store = None

    def names(self, upload: Upload) -> bool:
        """Whether its events refer to this result (a failure of the Rust plane has its text alone)."""
        mark = upload.mark.encode()
        return any(mark in json_text.dumps(request.body) for request in self.requests)

    @property
    def own_ids(self) -> list[int]:
        """Ids of ours that its requests carry (Rust plane)."""
        return [
            request.body["event_id"] for request in self.requests if request.has_own_id and request.body["event_id"]
        ]

    def who(self) -> dict[str, object]:
        """What an operator searches the log for."""
        return {"execution_id": self.execution_id, "command_id": self.command_id, "step": self.step}

    def packed(self) -> tuple[bytes, bytes | None]:
        """The row of the outbox; with what goes to the result store beside it, as it is."""
        names = ("event_id", "execution_id", "command_id", "step", "worker_id", "server_url", "created_at")
        row: dict[str, object] = {name: getattr(self, name) for name in names}
        if self.store is not None:
            row["store"] = self.store.packed()
        packed = json_text.dumps({**row, "dialect": self.dialect.value, "requests": _packed(self.requests)})
        return packed, self.store.upload.data if self.store is not None else None

    @classmethod
    def unpacked(cls, row: bytes, data: bytes | None = None) -> EventSet:
        """The set of a row. The first of its events count as tried: they were, or they were about to be.

        Raises:
            DocumentError: these bytes are no row of ours.
        """
        try:
            whole = json_text.loads(row)
            requests, store = _unpacked(whole.pop("requests")), whole.pop("store", None)
            if (store is None) is not (data is None):
                raise KeyError("data")
            requests[0].was_tried = store is None
            known = {one.name for one in fields(cls)}  # a later version may write more
            rest = {name: value for name, value in whole.items() if name in known}
            rest["store"] = StoreRequest.unpacked(store, data) if store is not None and data is not None else None
            return cls(**{**rest, "dialect": Dialect(whole["dialect"]), "requests": requests})
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error


def _packed(requests: Iterable[SetRequest]) -> list[dict[str, Any]]:
    return [
        {"path": one.path, "body": one.body, "key": one.idempotency_key, "is_rescue": one.is_rescue} for one in requests
    ]


def _unpacked(rows: Iterable[Mapping[str, Any]]) -> list[SetRequest]:
    return [SetRequest(row["path"], row["body"], row["key"], is_rescue=row.get("is_rescue", False)) for row in rows]


def _fill(requests: Iterable[SetRequest], values: Mapping[bytes, JsonValue]) -> None:
    """Put values where their marks stand. In the text: parts of a body may be JSON text already (json_text.embed)."""
    for request in requests:
        text = json_text.dumps(request.body)
        for mark, value in values.items():
            text = text.replace(mark, json_text.dumps(value))
        request.body = json_text.loads(text)
