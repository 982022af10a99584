"""Prometheus metrics. The upstream `noetl_worker_*` names keep their meaning; `execution_id` is never a label.

Closed label sets are shown at zero from the start, so that an absent series means "not this version" and never
"did not happen yet" (production-lessons 20).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from noetl_worker.models import AlreadyFinished, Claimed, ClaimOutcome, HeldByOther, HeldByThisWorker, RetryLater

__all__ = ["REGISTRY", "announce_kinds", "claim_ended", "event_emit", "exposition"]

REGISTRY: Final = CollectorRegistry()

PULLS: Final = Counter("noetl_worker_pulls", "Notifications by how the claim ended", ["outcome"], registry=REGISTRY)
PULL_DURATION: Final = Histogram(
    "noetl_worker_pull_duration_seconds",
    "From delivery to the claim's answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
DISPATCH_DURATION: Final = Histogram(
    "noetl_worker_dispatch_duration_seconds",
    "Time inside a tool",
    ["tool_kind"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=REGISTRY,
)
DISPATCH_ERRORS: Final = Counter(
    "noetl_worker_dispatch_errors", "Tools that raised or returned a failure", ["tool_kind"], registry=REGISTRY
)
CONCURRENT: Final = Gauge("noetl_worker_concurrent_dispatches", "Commands in flight", registry=REGISTRY)
SLOTS_LIMIT: Final = Gauge(
    "noetl_worker_slots_limit", "Slots that the control plane's answers let this worker fill", registry=REGISTRY
)
EVENT_EMIT_DURATION: Final = Histogram(
    "noetl_worker_event_emit_duration_seconds",
    "One event request until it is accepted, labelled by its last event",
    ["event_type"],
    registry=REGISTRY,
)
EVENT_EMIT_RETRIES: Final = Counter(
    "noetl_worker_event_emit_retries", "Event requests sent again", ["event_type"], registry=REGISTRY
)
EVENT_EMIT_FAILED: Final = Counter(
    "noetl_worker_event_emit_failed", "Event sets that the plane refused for good", registry=REGISTRY
)
SETTLEMENTS: Final = Counter("noetl_worker_settlements", "Answers to JetStream", ["settlement"], registry=REGISTRY)
DEAD_LETTERS: Final = Counter(
    "noetl_worker_dead_letters", "Messages kept as dead letters", ["reason"], registry=REGISTRY
)
OUTCOMES_DROPPED: Final = Counter(
    "noetl_worker_outcomes_dropped", "Outcomes of commands that had passed to another worker", registry=REGISTRY
)
OUTBOX_ROWS: Final = Gauge("noetl_worker_outbox_rows", "Event sets on disk", registry=REGISTRY)
OUTBOX_BYTES: Final = Gauge("noetl_worker_outbox_bytes", "Bytes of the event sets on disk", registry=REGISTRY)
OUTBOX_ADOPTED: Final = Counter(
    "noetl_worker_outbox_adopted", "Event sets taken over from dead workers", registry=REGISTRY
)
OUTBOX_FAILED: Final = Counter(
    "noetl_worker_outbox_write_errors", "Writes that the disk refused; the set is in memory", registry=REGISTRY
)
DUPLICATES: Final = Counter("noetl_worker_duplicates", "Deliveries dropped before the claim", registry=REGISTRY)
CASES_SKIPPED: Final = Counter("noetl_worker_cases_skipped", "Cases that did not parse", registry=REGISTRY)
PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_pending", "num_pending of the durable", ["stream", "consumer"], registry=REGISTRY
)
ACK_PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_ack_pending",
    "num_ack_pending of the durable",
    ["stream", "consumer"],
    registry=REGISTRY,
)
MAX_ACK_PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_max_ack_pending",
    "Limit of num_ack_pending over the whole pool",
    ["stream", "consumer"],
    registry=REGISTRY,
)
ACK_PENDING_FULL: Final = Gauge(
    "noetl_worker_nats_consumer_ack_pending_full",
    "1 while max_ack_pending is reached: no worker of the pool gets a command",
    ["stream", "consumer"],
    registry=REGISTRY,
)
READY: Final = Gauge("noetl_worker_ready", "1 while this worker pulls", registry=REGISTRY)
LOOP_LAG: Final = Gauge("noetl_worker_loop_lag_seconds", "Silence of the main event loop", registry=REGISTRY)
BUILD_INFO: Final = Gauge(
    "noetl_worker_build_info", "Always 1; what is running", ["version", "engine"], registry=REGISTRY
)

DEAD_LETTER_REASONS: Final = (
    "not_a_notification",
    "unknown_command",
    "claim_refused",
    "server_errors",
    "outcome_refused",
)

for _reason in DEAD_LETTER_REASONS:
    DEAD_LETTERS.labels(_reason)
for _outcome in ("claimed", "already_claimed", "retry_later", "failed"):
    PULLS.labels(_outcome)
for _settlement in ("ack", "nak", "term"):
    SETTLEMENTS.labels(_settlement)
for _event in ("call.done", "call.error", "step.exit", "command.completed", "command.failed"):
    EVENT_EMIT_DURATION.labels(_event)
    EVENT_EMIT_RETRIES.labels(_event)


def announce_kinds(kinds: Iterable[str]) -> None:
    """Shows the series of these tool kinds at zero."""
    for kind in kinds:
        DISPATCH_DURATION.labels(kind)
        DISPATCH_ERRORS.labels(kind)


def claim_ended(claim: ClaimOutcome, received_at: float) -> None:
    """Counts one claim in the upstream's four words."""
    if isinstance(claim, Claimed):
        word = "claimed"
    elif isinstance(claim, AlreadyFinished | HeldByOther | HeldByThisWorker):
        word = "already_claimed"
    else:
        word = "retry_later" if isinstance(claim, RetryLater) else "failed"
    PULLS.labels(word).inc()
    PULL_DURATION.observe(time.monotonic() - received_at)


@contextmanager
def event_emit(event_type: str) -> Iterator[None]:
    """Times one event request, retries included."""
    started = time.perf_counter()
    try:
        yield
    finally:
        EVENT_EMIT_DURATION.labels(event_type).observe(time.perf_counter() - started)


def exposition() -> bytes:
    """The text that GET /metrics answers."""
    return generate_latest(REGISTRY)
