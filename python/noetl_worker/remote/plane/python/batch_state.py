"""State of a batch of events on the Python plane (protocol/batches.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.models.wire import JsonValue, fields_of

_BEFORE_THE_QUEUE: Final = ("ack_timeout", "enqueue_error")
"""Error codes of a batch that the plane stored but never put into its queue, so that its engine did not run. The first
is recorded, the second was read in the plane's source. `processing_error` and `processing_timeout` in that source are
other cases: the engine may have run. A 503 with one of the codes here means that the request gave up waiting for the
queue."""


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
        """True if the plane will never process the batch, not even if the request is sent again under the same key."""
        return self.word == "failed" and self.error_code in _BEFORE_THE_QUEUE


def unqueued_batch(refused: JsonValue) -> str | None:
    """Return the id of the batch that the plane has stored but will never process, from the body of a 503, or None.

    The plane also records this failure in the batch's state, unless the plane's database is down (read in its source).
    With the database down, the state stays `accepted` for ever, and a request under the same key is answered as a
    duplicate.
    """
    detail = fields_of(fields_of(refused).get("detail"))
    if detail.get("code") not in _BEFORE_THE_QUEUE:
        return None
    batch = detail.get("request_id")
    return batch if isinstance(batch, str) else None
