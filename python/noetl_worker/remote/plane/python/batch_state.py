"""State of a batch of events on the Python plane (protocol/batches.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noetl_worker.models.wire import JsonValue, fields_of

_BEFORE_THE_QUEUE: Final = ("ack_timeout", "enqueue_error")
"""Error codes of a batch that the plane stored, but never put into its queue. The plane's engine, which issues the next
commands, has not run for such a batch. A 503 with such a code means that the plane stopped waiting for its queue.

`ack_timeout` is recorded; `enqueue_error` was read in the plane's source. The codes `processing_error` and
`processing_timeout` are not listed, because the engine may have run.
"""


class BatchState(NamedTuple):
    """State of a batch of events (GET /api/events/batch/{id}/status, protocol/batches.md#after-the-answer)."""

    status: str
    """State of the batch as the plane names it: accepted, processing, completed or failed."""
    error_code: str
    message: str

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> BatchState:
        return cls(str(answer.get("state")), str(answer.get("error_code") or ""), str(answer.get("message") or ""))

    @property
    def is_over(self) -> bool:
        return self.status in ("completed", "failed")

    @property
    def was_never_processed(self) -> bool:
        """True if the plane will never process the batch. Sending the request again under the same Idempotency-Key does
        not help."""
        return self.status == "failed" and self.error_code in _BEFORE_THE_QUEUE


def unqueued_batch(refused: JsonValue) -> str | None:
    """Return the batch id from a 503's body if the plane will never process the stored batch. Return None for any other
    body.

    The plane also records this failure in the state of the batch, unless the plane's database is down (read in the
    plane's source). With the database down, the state stays `accepted` for ever. A repeated request under the same
    Idempotency-Key is then answered as a duplicate.
    """
    detail = fields_of(fields_of(refused).get("detail"))
    if detail.get("code") not in _BEFORE_THE_QUEUE:
        return None
    batch = detail.get("request_id")
    return batch if isinstance(batch, str) else None
