"""The Prometheus metrics. Metrics with the same name as in the published NoETL workers mean the same here.

`execution_id` is never a label. A series whose labels are known in advance is shown at zero from the start. So an
absent series means "this version does not have it", and never "it did not happen yet".
"""

from __future__ import annotations

from typing import Final

from prometheus_client import ProcessCollector, generate_latest

from noetl_worker.models.claim import (
    AlreadyFinished,
    AuthRefusedClaim,
    ClaimAnswer,
    Claimed,
    ClaimRefused,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.disposition import Answer, DispositionKind, assert_never
from noetl_worker.observability.series import REGISTRY, Counter, Gauge, Histogram
from noetl_worker.observability.tool_times import ToolTimes
from noetl_worker.process.threads import OWN_NAMES, TOOL_NAMES, WORK

ProcessCollector(registry=REGISTRY)

PULLS: Final = Counter("noetl_worker_pulls", "Notifications by how the claim ended", ["outcome"])
PULL_DURATION: Final = Histogram(
    "noetl_worker_pull_duration_seconds",
    "From delivery to the claim's answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
TOOLS: Final = ToolTimes(buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120))
SCHEDULE_TO_START: Final = Histogram(
    "noetl_worker_schedule_to_start_seconds",
    "From a command's message in the stream to the start of its tool, by WORKER_POOL_NAME",
    ["pool", "tool_kind"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
PLANE_REQUESTS: Final = Counter(
    "noetl_worker_control_plane_requests", "Requests sent to control planes, heartbeats too"
)
PLANE_ROUTES: Final = ("claim", "events", "results", "registry", "other")
PLANE_TIME_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PLANE_TIMES: Final = Histogram(
    "noetl_worker_control_plane_request_duration_seconds",
    "From a request to the control plane to its answer, without requests in which it issues commands",
    ["route"],
    buckets=PLANE_TIME_BUCKETS,
)
CONCURRENT: Final = Gauge("noetl_worker_concurrent_dispatches", "Commands in flight")
SLOTS: Final = Gauge("noetl_worker_slots", "Slots of this worker (WORKER_MAX_CONCURRENT)")
SLOTS_IN_USE: Final = Gauge("noetl_worker_slots_in_use", "Slots that commands hold")
SLOTS_LIMIT: Final = Gauge("noetl_worker_slots_limit", "Slots that the control plane's answers let this worker fill")
PARKED: Final = Gauge(
    "noetl_worker_parked_commands",
    "Commands that hold no slot: no room for their kind, or they wait elsewhere (child playbook, control plane)",
    ["waits"],
)
LAST_START: Final = Gauge(
    "noetl_worker_last_start",
    "1 while a command on its last allowed start runs alone or waits to run alone: the worker pulls nothing else",
)
GATE_LIMIT: Final = Gauge(
    "noetl_worker_gate_limit",
    "Most requests at the same time to a control plane of the settings, or to its result store",
    ["plane", "gate"],
)
GATE_IN_USE: Final = Gauge("noetl_worker_gate_in_use", "Requests to the plane without an answer yet", ["plane", "gate"])
GATE_WAITING: Final = Gauge(
    "noetl_worker_gate_waiting", "Requests to the plane that wait to be sent", ["plane", "gate"]
)
GATE_DOWN: Final = Gauge(
    "noetl_worker_gate_down",
    "1 while the plane counts as down: several requests in a row were refused or not answered",
    ["plane", "gate"],
    combine=max,
)
EVENT_EMIT_DURATION: Final = Histogram(
    "noetl_worker_event_emit_duration_seconds",
    "One event request until it is accepted, labelled by its last event",
    ["event_type"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
EVENT_EMIT_RETRIES: Final = Counter("noetl_worker_event_emit_retries", "Event requests sent again", ["event_type"])
EVENT_EMIT_FAILED: Final = Counter("noetl_worker_event_emit_failed", "Event sets that the plane refused for good")
DISPOSITIONS: Final = Counter("noetl_worker_dispositions", "Notifications by how they ended", ["disposition"])
ANSWERS: Final = Counter("noetl_worker_answers", "Answers to JetStream", ["answer"])
DEAD_LETTERS: Final = Counter("noetl_worker_dead_letters", "Messages stored as dead letters", ["reason"])
DEAD_LETTERS_KEPT: Final = Gauge(
    "noetl_worker_dead_letters_kept", "Dead letters in the stream of all workers, counted once a minute", combine=max
)
OUTCOMES_DROPPED: Final = Counter(
    "noetl_worker_outcomes_dropped",
    "Late outcomes that were not reported: another worker has the command, or the command is over or unknown",
)
EXECUTIONS_STANDING_STILL: Final = Counter(
    "noetl_worker_executions_standing_still",
    "Executions that stopped because the request with a command's outcome was cut off",
)
OUTBOX_ROWS: Final = Gauge("noetl_worker_outbox_rows", "Event sets on disk")
OUTBOX_BYTES: Final = Gauge("noetl_worker_outbox_bytes", "Bytes of the event sets on disk")
OUTBOX_OLDEST: Final = Gauge(
    "noetl_worker_outbox_oldest_seconds", "Age of the oldest event set on disk; 0: there is none", combine=max
)
OUTBOX_ADOPTED: Final = Counter("noetl_worker_outbox_adopted", "Event sets taken over from dead workers")
OUTBOX_UNWRITTEN: Final = Gauge(
    "noetl_worker_outbox_unwritten", "Event sets in memory only, because the disk refused them"
)
OUTBOX_FAILED: Final = Counter("noetl_worker_outbox_write_errors", "Writes that the disk refused; the set is in memory")
COMMANDS_LOST: Final = Counter(
    "noetl_worker_commands_lost", "Commands that waited in a stream when somebody deleted it, as last counted"
)
DUPLICATES: Final = Counter("noetl_worker_duplicates", "Deliveries dropped before the claim")
RESOURCE_SHORTAGES: Final = Counter(
    "noetl_worker_resource_shortages",
    "Commands that found no descriptor, process or memory on this machine before they had any effect",
)
BATCHES_NOT_WATCHED: Final = Counter(
    "noetl_worker_batches_not_watched",
    "Reported batches that were forgotten before the plane had processed them: too many at once",
)
BATCHES_NOT_RESCUED: Final = Counter(
    "noetl_worker_batches_not_rescued",
    "Reported batches that the plane has not processed and that are not sent again: an error line names each command",
)
START_NOTES_FULL: Final = Gauge(
    "noetl_worker_start_notes_full",
    "1 while the bucket of starts has no room: a command that ends every worker it runs in is not detected",
)
SERVERS_NOT_NAMED: Final = Counter(
    "noetl_worker_servers_not_named", "Notifications of servers that the settings do not name"
)
FOREIGN_POOL: Final = Counter(
    "noetl_worker_foreign_pool",
    "Deliveries of commands of another pool, returned: the durable's filters let them through",
)
CASES_SKIPPED: Final = Counter("noetl_worker_cases_skipped", "Cases that did not parse")
PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_pending", "num_pending of the durable", ["stream", "consumer"], combine=max
)
OLDEST_WAITING: Final = Gauge(
    "noetl_worker_nats_consumer_oldest_waiting_seconds",
    "Upper bound of the longest wait of a message, as this worker sees it; for a pool, take the workers' minimum",
    ["stream", "consumer"],
    combine=min,
)
ACK_PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_ack_pending",
    "num_ack_pending of the durable",
    ["stream", "consumer"],
    combine=max,
)
MAX_ACK_PENDING: Final = Gauge(
    "noetl_worker_nats_consumer_max_ack_pending",
    "Limit of num_ack_pending over the whole pool",
    ["stream", "consumer"],
    combine=max,
)
ACK_PENDING_FULL: Final = Gauge(
    "noetl_worker_nats_consumer_ack_pending_full",
    "1 while max_ack_pending is reached: no worker of the pool gets a command",
    ["stream", "consumer"],
    combine=max,
)
PAUSED: Final = Gauge(
    "noetl_worker_nats_consumer_pause_seconds",
    "Seconds left of an operator's pause of the durable; 0: it is not paused",
    ["stream", "consumer"],
    combine=max,
)
PERMISSION_VIOLATIONS: Final = Counter(
    "noetl_worker_nats_permission_violations",
    "Operations that NATS refused because the login lacks the permission",
    ["what"],
)
DURABLE_USABLE: Final = Gauge(
    "noetl_worker_durable_usable",
    "0 while a change of the durable keeps this pool's commands away, or lets another pool's through",
    ["stream", "consumer"],
    combine=min,
)
NATS_CONNECTED: Final = Gauge("noetl_worker_nats_connected", "1 while NATS is connected", combine=min)
AUTH_REFUSED: Final = Gauge(
    "noetl_worker_auth_refused", "1 while the control plane refuses the worker's credentials", combine=max
)
CREDENTIAL_ENDS: Final = Gauge(
    "noetl_worker_credential_ends_timestamp_seconds",
    "Unix time at which the certificate or token of a setting expires; 0: it is not set, or has no end",
    ["credential"],
    combine=max,
)
READY: Final = Gauge("noetl_worker_ready", "1 while this worker pulls", combine=min)
PLANE_DOWN: Final = Gauge(
    "noetl_worker_plane_down", "1 while NOETL_SERVER_URL does not answer this worker's heartbeats", combine=max
)
KEEPALIVE_FAILURES: Final = Counter(
    "noetl_worker_keepalive_failures",
    "Signs of life that did not get through: in_progress of deliveries (to NATS), heartbeats (to the control plane)",
    ["what"],
)
LOOP_DELAY: Final = Histogram(
    "noetl_worker_loop_delay_seconds",
    "Delay of the main event loop beyond the time asked for, measured twice a second",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
POOL_WAITING: Final = Gauge(
    "noetl_worker_pool_waiting_seconds",
    "Longest time that a call waits for a thread: look-ups of names for planes and NATS, look-ups for tools, all other "
    "work",
    ["pool"],
    combine=max,
)
LOOP_LAG: Final = Gauge(
    "noetl_worker_loop_lag_seconds", "Seconds for which the main event loop has not run", combine=max
)
BUILD_INFO: Final = Gauge("noetl_worker_build_info", "Always 1; what is running", ["version", "engine"], combine=max)

ENDED: Final = {kind: DISPOSITIONS.labels(kind.value) for kind in DispositionKind}
ANSWERED: Final = {answer: ANSWERS.labels(answer.value) for answer in Answer}

for _pool in (OWN_NAMES, TOOL_NAMES, WORK):
    POOL_WAITING.labels(_pool)
for _kind in DispositionKind:
    if _kind.answer is Answer.TERM:
        DEAD_LETTERS.labels(_kind.value)
for _what in ("acknowledge", "pull", "other"):
    PERMISSION_VIOLATIONS.labels(_what)
IN_PROGRESS_FAILURES: Final = KEEPALIVE_FAILURES.labels("in_progress")
HEARTBEAT_FAILURES: Final = KEEPALIVE_FAILURES.labels("heartbeat")
PARKED_FOR_KIND: Final = PARKED.labels("kind")
PARKED_ELSEWHERE: Final = PARKED.labels("elsewhere")

_CLAIMED: Final = PULLS.labels("claimed")
for _outcome in ("already_claimed", "retry_later", "failed"):
    PULLS.labels(_outcome)
_EVENTS: Final = ("call.done", "call.error", "step.exit", "command.completed", "command.failed", "result")
EMITTED: Final = {event: EVENT_EMIT_DURATION.labels(event) for event in _EVENTS}
for _event in _EVENTS:
    EVENT_EMIT_RETRIES.labels(_event)


def count_claim(claim: ClaimAnswer, took_s: float) -> None:
    """Count a claim by its result in the metric `noetl_worker_pulls`, and record the claim's duration. The results are
    claimed, already_claimed, retry_later and failed."""
    PULL_DURATION.observe(took_s)
    match claim:
        case Claimed():
            _CLAIMED.value += 1
            return
        case AlreadyFinished() | HeldByOther() | HeldByThisWorker():
            word = "already_claimed"
        case RetryLater():
            word = "retry_later"
        case AuthRefusedClaim() | NotFound() | ClaimRefused():
            word = "failed"
        case _:
            assert_never(claim)
    PULLS.labels(word).inc()


def exposition() -> bytes:
    """Return all metrics in Prometheus's text format, the body of GET /metrics."""
    return generate_latest(REGISTRY)
