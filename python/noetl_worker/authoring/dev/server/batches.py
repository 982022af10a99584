"""The Python plane's batch route. Events are stored at once; the plane acts on them later (protocol/batches.md)."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from noetl_worker.authoring.dev.database import moment
from noetl_worker.authoring.dev.event_log import EventLog, LoggedEvent
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer, detail, invalid, missing, required
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.server.python_events import Item, PythonEvents, command_ref, read_item
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text.json_text import dumps, embed, escaped_size

log = logging.getLogger(__name__)
QueueFault = Literal["queue_unavailable", "ack_timeout", "worker_unavailable", "restarted"]
_NODE: Final = "events.batch"
_MOST_EVENTS: Final = 256
_MOST_PAYLOAD: Final = 2 * 1024 * 1024
"""Largest total size, in bytes, of the payloads of the events in a batch."""


class _Pending(NamedTuple):
    """A stored batch that the plane has not acted on yet."""

    request_id: int
    execution: Execution
    items: Sequence[tuple[Item, int]]
    """The posted events, each with the id of its stored row."""
    queued_at: float


class Batches:
    """Stores batches, and acts on them one after another, as the real plane's only batch worker does."""

    def __init__(self, event_log: EventLog, events: PythonEvents, dispatcher: Dispatcher) -> None:
        self._log, self._events, self._dispatcher = event_log, events, dispatcher
        self._queue: deque[_Pending] = deque()
        self.fault: QueueFault | None = None
        """A fault that a test sets for the following batches.

        With `worker_unavailable` and `queue_unavailable`, nothing is stored. With `ack_timeout`, events are stored and
        the batch fails. With `restarted`, events are stored and the plane forgets the batch
        (protocol/batches.md#after-the-answer)."""
        self.queued: Final = asyncio.Event()
        """Set when a batch has been added to the queue."""

    # ── accepting ───────────────────────────────────────────────────────────────────────────────

    def accept(self, body: JsonValue, raw: bytes, key: str | None) -> HttpAnswer:
        """Answer POST /api/events/batch: store the batch's events, and queue the batch to be acted on later."""
        items = self._read(body, raw)
        if (known := self._row("idempotency_key", key)) is not None:
            return self._accepted(known["request_id"], known["event_ids"], key, is_duplicate=True)
        if self.fault in ("queue_unavailable", "worker_unavailable"):
            # Recorded (queue-no-workers): nothing is stored, and there is no Retry-After.
            return detail(503, {"code": self.fault, "message": "Batch queue unavailable"})
        try:
            execution = self._events.execution_for(body["execution_id"], items)
        except ValueError as error:
            return detail(500, {"code": "enqueue_error", "message": str(error)})
        return self._store(execution, items, key, body.get("worker_id"))

    def _read(self, body: JsonValue, raw: bytes) -> list[Item]:
        found = required("execution_id", body)["execution_id"]
        if not isinstance(found, str):
            raise invalid("string_type", ["body", "execution_id"], "Input should be a valid string", found)
        posted = body.get("events")
        if not isinstance(posted, list):
            raise missing("events", body)
        if len(posted) > _MOST_EVENTS:
            text = f"Value error, Batch contains {len(posted)} events; limit is {_MOST_EVENTS}"
            raise invalid("value_error", ["body"], text, body, {"error": {}})
        most = _MOST_PAYLOAD
        if len(raw) * 6 > most and escaped_size(dumps([entry.get("payload", {}) for entry in posted])) > most:
            text = f"Value error, Batch payload exceeds configured limit ({most} bytes)"
            raise invalid("value_error", ["body"], text, None, {"error": {}})
        return [read_item(fields_of(entry), default_actionable=False) for entry in posted]

    def _store(self, execution: Execution, items: Sequence[Item], key: str | None, worker_id: JsonValue) -> HttpAnswer:
        request_id, accepted_id, now = self._log.ids.next(), self._log.ids.next(), time.time()
        events = [self._events.event(execution, item, worker_id=worker_id, by_batch=True) for item in items]
        event_ids = [event.event_id for event in events]
        context = {"event_ids": event_ids, "request_id": str(request_id), "commands_generated": 0}
        accepted = LoggedEvent(
            accepted_id, execution.execution_id, "batch.accepted", _NODE, "PENDING", now,
            result={"status": "PENDING", "context": context},
        )  # fmt: skip
        self._log.append([accepted, *events])
        for item in items:
            self._events.mark_row(item, command_ref(item, by_batch=True))
        if self.fault != "restarted":
            self._log.db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, 'accepted', NULL, NULL, 0, ?)",
                (request_id, key, execution.execution_id, dumps(event_ids), now),
            )
            pending = _Pending(request_id, execution, list(zip(items, event_ids, strict=True)), now)
            if self.fault == "ack_timeout":
                self._close(pending, "failed", "ack_timeout", "Enqueue timeout (>0.25s)")
                return detail(503, {"code": "ack_timeout", "request_id": str(request_id)}, retry_after_s=1)
            self._queue.append(pending)
            self.queued.set()
        return self._accepted(request_id, dumps(event_ids), key, is_duplicate=False)

    def _accepted(self, request_id: int, event_ids: bytes, key: str | None, *, is_duplicate: bool) -> HttpAnswer:
        return answer(
            {
                "status": "accepted",
                "request_id": str(request_id),
                "event_ids": embed(event_ids),
                "commands_generated": 0,
                "queue_depth": 0 if is_duplicate else max(1, len(self._queue)),
                "duplicate": is_duplicate,
                "idempotency_key": key,
            },
            202,
        )

    def _row(self, column: str, value: str | None) -> sqlite3.Row | None:
        query = f"SELECT * FROM batches WHERE {column} = ?"
        row: sqlite3.Row | None = self._log.db.execute(query, (value,)).fetchone()
        return row

    # ── working off ─────────────────────────────────────────────────────────────────────────────

    def work_off(self) -> None:
        """Act on all stored batches, the oldest first."""
        while self._queue:
            self._work(self._queue.popleft())

    def _work(self, pending: _Pending) -> None:
        """Let the router act on the last event of a batch that can advance the execution (`is_driving`).

        The plane does not act on the other events of the batch, which are stored already.
        """
        began = time.time()
        execution, request_id = pending.execution, str(pending.request_id)
        context = {
            "request_id": request_id,
            "event_count": len(pending.items),
            "queue_wait_ms": round((began - pending.queued_at) * 1000, 3),
        }
        driving = [(item, event_id) for item, event_id in pending.items if item.is_driving]
        try:
            self._write(execution, "processing", "RUNNING", context)
            generated = self._events.act(execution, *driving[-1], pending.request_id) if driving else 0
        except Exception as error:
            log.exception(
                "dev failed at batch %s of execution %s; report this with the traceback",
                request_id,
                execution.execution_id,
            )
            self._close(pending, "failed", "processing_error", str(error))
            # No recording shows the real plane's next action. Without this, the execution would run for ever.
            self._dispatcher.fail(execution, error)
            return
        self._close(
            pending,
            "completed",
            processing_ms=round((time.time() - began) * 1000, 3),
            actionable_event=bool(driving),
            issue_commands_ms=0.0,
            commands_generated=generated,
        )

    def _close(
        self, pending: _Pending, state: str, code: str | None = None, message: str | None = None, **context: JsonValue
    ) -> None:
        known = {"request_id": str(pending.request_id), **context}
        self._write(pending.execution, state, state.upper(), known, error=message)
        self._log.db.execute(
            "UPDATE batches SET state = ?, error_code = ?, message = ?, commands_generated = ?, updated_at = ?"
            " WHERE request_id = ?",
            (state, code, message, context.get("commands_generated"), time.time(), pending.request_id),
        )

    def _write(
        self, execution: Execution, state: str, status: str, context: Mapping[str, JsonValue], error: str | None = None
    ) -> None:
        result = {"status": status, "context": context}
        self._log.write(execution.execution_id, f"batch.{state}", _NODE, status, result=result, error=error)

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    def status_route(self, request_id: str) -> HttpAnswer:
        """Answer GET /api/events/batch/{request_id}/status: whether the plane has acted on the batch."""
        row = self._row("request_id", request_id)
        if row is None:
            return detail(404, f"Batch request not found: {request_id}")
        words = {"accepted": "PENDING", "completed": "COMPLETED", "failed": "FAILED"}
        return answer(
            {
                "request_id": str(row["request_id"]),
                "execution_id": str(row["execution_id"]),
                "state": row["state"],
                "status": words[row["state"]],
                "error_code": row["error_code"],
                "message": row["message"],
                "commands_generated": row["commands_generated"],
                "idempotency_key": row["idempotency_key"],
                "updated_at": moment(row["updated_at"]),
            }
        )
