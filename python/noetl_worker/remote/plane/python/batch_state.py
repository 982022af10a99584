"""State of a batch of events on the Python plane (protocol/batches.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.models.wire import JsonValue, fields_of

_BEFORE_THE_QUEUE: Final = ("ack_timeout", "enqueue_error")
"""Codes for stored events whose batch never entered the plane's queue. The first is recorded, the second read in the
source, as are `processing_error` and `processing_timeout`, after which the engine may have run. A 503 with one of these
codes means that the request has stopped waiting for the queue."""


class BatchState(NamedTuple):
    """State of a batch of events (GET /api/events/batch/{id}/status, protocol/batches.md#after-the-answer)."""

    word: str
    """State: accepted, processing, completed or failed."""
    error_code: str
    message: str

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> BatchState:
        return cls(str(answer.get("state")), str(answer.get("error_code") or ""), str(answer.get("message") or ""))

    @property
    def is_over(self) -> bool:
        return self.word in ("completed", "failed")

    @property
    def was_never_processed(self) -> bool:
        """True if the batch never will be processed, whatever is sent again under its key."""
        return self.word == "failed" and self.error_code in _BEFORE_THE_QUEUE


def unqueued_batch(refused: JsonValue) -> str | None:
    """Return the batch that, by the body of a 503, is stored and never to be processed, or None.

    The plane writes this to the batch's state too, unless its database is down (read in its source). The state then
    stays `accepted` for ever, and the same key is answered as a duplicate.
    """
    detail = fields_of(fields_of(refused).get("detail"))
    if detail.get("code") not in _BEFORE_THE_QUEUE:
        return None
    batch = detail.get("request_id")
    return batch if isinstance(batch, str) else None
