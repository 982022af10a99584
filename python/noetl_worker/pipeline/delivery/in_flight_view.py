"""The worker's present work for operators: the answer to GET /debug/inflight, shown by `noetl-worker top`.

The keepalive thread builds the answer, even while the main loop is blocked. So this code copies the main loop's data,
and never waits for the main loop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noetl_worker.observability import metrics
from noetl_worker.observability.series import Gauge
from noetl_worker.pipeline.stages import Progress
from noetl_worker.text.secrets import redaction


@dataclass(frozen=True, repr=False)
class InFlightView:
    """Callable that returns the worker's present state as one JSON object. Times are in seconds."""

    progresses: Mapping[Any, Progress]
    """State of each delivery. The main loop may change this mapping at any time."""
    worker: Mapping[str, object]
    """The fields of the start-up log line: ids, addresses, version."""
    since: float = field(default_factory=lambda: time.monotonic())

    def __call__(self) -> dict[str, Any]:
        now = time.monotonic()
        shown = {
            "worker": {**self.worker, "up_s": round(now - self.since, 1)},
            "slots": {
                "size": metrics.SLOTS.own.value,
                "used": metrics.SLOTS_IN_USE.own.value,
                "limit": metrics.SLOTS_LIMIT.own.value,
            },
            "lag": {"waiting": _most(metrics.PENDING), "in_flight": _most(metrics.ACK_PENDING)},
            "gate": {
                "limit": _values_by_label(metrics.GATE_LIMIT),
                "waiting": _values_by_label(metrics.GATE_WAITING),
                "down": _values_by_label(metrics.GATE_DOWN),
            },
            "outbox": {
                "rows": metrics.OUTBOX_ROWS.own.value,
                "bytes": metrics.OUTBOX_BYTES.own.value,
                "oldest_s": metrics.OUTBOX_OLDEST.own.value,
            },
            "commands": [_command(progress, now) for progress in list(self.progresses.values())],
        }
        view: dict[str, Any] = redaction.redact_value(shown)
        return view


def _command(progress: Progress, now: float) -> dict[str, Any]:
    """Return the JSON fields of one delivery. They have no ids until the delivery's notification is decoded."""
    command = progress.command
    found: dict[str, Any] = {
        "stage": progress.stage.name.lower(),
        "kind": command.kind if command is not None else None,
    }
    if progress.notification is not None:
        found |= {name: str(value) for name, value in progress.notification.log_ids().items()}
    if (delivery := progress.delivery) is not None:
        found["seconds"] = round(now - delivery.received_at, 3)
        found["deliveries"] = delivery.num_delivered
    return found


def _most(gauge: Gauge) -> float:
    return max(_values_by_label(gauge).values(), default=0.0)


def _values_by_label(gauge: Gauge) -> dict[str, float]:
    """Return the values of a Prometheus gauge as a dict. Each key is a value's labels, joined with spaces."""
    return {" ".join(sample.labels.values()): sample.value for family in gauge.collect() for sample in family.samples}
