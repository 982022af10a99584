"""The terminal events of one command, ready to send and ready to be kept on disk: what the outbox has a row of."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, fields
from typing import Any

from noetl_worker import json_text
from noetl_worker.control_plane.dialects import SINGLE
from noetl_worker.errors import DocumentError
from noetl_worker.models import CommandId, Dialect

__all__ = ["EventSet", "SetRequest"]


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
class EventSet:
    """Requests that must be accepted in this order; an accepted one leaves the list."""

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
    created_at: float = field(default_factory=time.time)
    """Seconds since 1970: it outlives the process, so no monotonic clock will do."""

    @property
    def key(self) -> str:
        """One set a claim: a failure that replaces a refused outcome has the same key."""
        return f"{self.worker_id}/{self.event_id}"

    @property
    def own_ids(self) -> list[int]:
        """Ids of ours that its requests carry (Rust plane)."""
        return [
            request.body["event_id"] for request in self.requests if request.has_own_id and request.body["event_id"]
        ]

    def who(self) -> dict[str, object]:
        """What an operator searches the log for."""
        return {"execution_id": self.execution_id, "command_id": self.command_id, "step": self.step}

    def packed(self) -> bytes:
        """The row of the outbox."""
        requests = [
            {"path": one.path, "body": one.body, "key": one.idempotency_key, "is_rescue": one.is_rescue}
            for one in self.requests
        ]
        names = ("event_id", "execution_id", "command_id", "step", "worker_id", "server_url", "created_at")
        row: dict[str, object] = {name: getattr(self, name) for name in names}
        return json_text.dumps({**row, "dialect": self.dialect.value, "requests": requests})

    @classmethod
    def unpacked(cls, row: bytes) -> EventSet:
        """The set of a row. Its first request counts as tried: it was, or it was about to be.

        Raises:
            DocumentError: these bytes are no row of ours.
        """
        try:
            whole = json_text.loads(row)
            requests = [
                SetRequest(item["path"], item["body"], item["key"], is_rescue=item.get("is_rescue", False))
                for item in whole.pop("requests")
            ]
            requests[0].was_tried = True
            known = {one.name for one in fields(cls)}  # a later version may write more
            rest = {name: value for name, value in whole.items() if name in known}
            return cls(**{**rest, "dialect": Dialect(whole["dialect"]), "requests": requests})
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error
