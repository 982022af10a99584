"""What the Python plane says of one batch of events (protocol/batches.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.models.wire import JsonValue, fields_of

_BEFORE_THE_QUEUE: Final = ("ack_timeout", "enqueue_error")
"""Of the plane's codes: the events were stored, and their batch never came into its queue (the first is recorded, the
second read in its source, as `processing_error` and `processing_timeout`: after these the engine may have run). A 503
with one of them is said by the request that waited for the queue, and waits no more."""


class BatchState(NamedTuple):
    """What became of a batch of events (GET /api/events/batch/{id}/status, protocol/batches.md#after-the-answer)."""

    word: str
    """accepted, processing, completed or failed."""
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
        """And never will be, whatever is sent again under its key."""
        return self.word == "failed" and self.error_code in _BEFORE_THE_QUEUE


def unqueued_batch(refused: JsonValue) -> str | None:
    """The batch that the body of a 503 says is stored and never to be processed.

    The plane notes that as the batch's state as well, but not where its database is down (read in its source): the
    state then stays `accepted` for ever, and the same key is answered as a duplicate.
    """
    detail = fields_of(fields_of(refused).get("detail"))
    if detail.get("code") not in _BEFORE_THE_QUEUE:
        return None
    batch = detail.get("request_id")
    return batch if isinstance(batch, str) else None
