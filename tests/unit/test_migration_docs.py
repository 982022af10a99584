"""What docs/migration.md promises is there, and it leaves out nothing that the published workers have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from noetl_worker.observability import metrics
from noetl_worker.settings.settings import SETTINGS

PAGE = Path(__file__, "../../../docs/migration.md").resolve().read_text(encoding="utf-8")
KNOWN = {name for line in SETTINGS for name in (line.variable, *line.aliases)} | {"PORT"}

# Facts about the published workers: noetl-worker 5.52.0 with what 5.120 added, and the worker of NoETL 4.0.0. The
# name of a family ends in an underscore.
RUST_VARIABLES = """
    K8S_NODE_NAME HOSTNAME NATS_CONSUMER NATS_FILTER_SUBJECT NATS_PASSWORD NATS_STREAM NATS_SUBJECT NATS_TOKEN NATS_URL
    NATS_USER NOETL_ARTIFACT_ROOT NOETL_AUTOSINK NOETL_CLAIM_DEAD_LETTER NOETL_COMMAND_BUS NOETL_COMMAND_BUS_
    NOETL_COMMAND_SHARD_COUNT NOETL_CONTAINER_COMPLETION_POLL NOETL_CONTAINER_POLL_INTERVAL_SECS
    NOETL_CONTAINER_POLL_MAX_INTERVAL_SECS NOETL_CONTAINER_POLL_MAX_WAIT_SECS NOETL_EHDB_ NOETL_EVENT_BUS_
    NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES NOETL_FEED_FILTER_SUBJECT NOETL_INTERNAL_API_TOKEN NOETL_IPC_CACHE_BUDGET_BYTES
    NOETL_KEYCHAIN_ENV_VARS NOETL_KEYCHAIN_STRICT NOETL_MATERIALIZER_ NOETL_MCP_REQUEST_TIMEOUT_SECONDS NOETL_MCP_URL
    NOETL_NATS_BLOCKING_CLAIM NOETL_NATS_CLAIM_EXPIRES_MS NOETL_NODE_ID NOETL_NODE_NAME NOETL_OFFSERVER_SPINE_ORDER
    NOETL_PLAYBOOK_AWAIT_CHILD_RESULT NOETL_PROVIDER_ERROR_TERMINATES NOETL_RESULT_ NOETL_RUN_MODE
    NOETL_SEALED_CREDENTIALS NOETL_SERVER_URL NOETL_SHARD_COUNT NOETL_SHARD_ID NOETL_SHARD_INDEX
    NOETL_SIDE_EFFECT_BARRIER NOETL_SINK_GATE_EVICTION
    NOETL_SNOWFLAKE_EPOCH_MS NOETL_SNOWFLAKE_NODE_ID NOETL_STATE_ NOETL_SUBSCRIPTION_PATH
    NOETL_TASK_SEQUENCE_MAX_ITERATIONS NOETL_TLS_CA NOETL_TLS_CLIENT_CERT NOETL_TLS_CLIENT_KEY
    NOETL_WARM_ORCHESTRATE_PLUGIN NOETL_WORKER_COMMAND_TIMEOUT_SECONDS PORT RUST_LOG WORKER_HEARTBEAT_INTERVAL WORKER_ID
    WORKER_MAX_CONCURRENT WORKER_METRICS_BIND WORKER_MODE WORKER_NATS_LAG_POLL_INTERVAL WORKER_POOL_NAME
"""
PYTHON_VARIABLES = """
    HOSTNAME NATS_CONSUMER NATS_PASSWORD NATS_STREAM NATS_SUBJECT NATS_URL NATS_USER NOETL_CLUSTER_ID
    NOETL_COMMAND_CLAIM_LEASE_SECONDS NOETL_COMMAND_HEARTBEAT_INTERVAL_SECONDS NOETL_COMMAND_HEARTBEAT_MAX_RETRIES
    NOETL_COMMAND_HEARTBEAT_TIMEOUT_SECONDS NOETL_CREDENTIAL_CACHE_MAX_ENTRIES NOETL_CREDENTIAL_CACHE_TTL_SECONDS
    NOETL_CREDENTIAL_FETCH_BACKOFF_SECONDS NOETL_CREDENTIAL_FETCH_RETRIES NOETL_CREDENTIAL_FETCH_TIMEOUT_SECONDS
    NOETL_DATA_DIR NOETL_DEFAULT_STORAGE_TIER NOETL_DEREGISTER_BACKOFF NOETL_DEREGISTER_RETRIES
    NOETL_EVENT_INLINE_MAX_BYTES NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES NOETL_GCS_BUCKET
    NOETL_HOT_PATH_INITIAL_EVENT_MAX_RETRIES NOETL_HOT_PATH_INITIAL_EVENT_TIMEOUT_SECONDS NOETL_INLINE_MAX_BYTES
    NOETL_KEYCHAIN_REFRESH_THRESHOLD NOETL_NODE_ID NOETL_NODE_NAME NOETL_REGION NOETL_S3_ NOETL_SERVER_URL
    NOETL_WORKER_BASE_URL NOETL_WORKER_CAPACITY NOETL_WORKER_COMMAND_TIMEOUT_SECONDS
    NOETL_WORKER_CONCURRENCY_PROBE_INTERVAL NOETL_WORKER_DB_SEMAPHORE NOETL_WORKER_EVENT_TIMEOUT
    NOETL_WORKER_HEARTBEAT_INTERVAL NOETL_WORKER_HTTP_TIMEOUT NOETL_WORKER_ID NOETL_WORKER_LABELS
    NOETL_WORKER_MAX_INFLIGHT_COMMANDS NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS NOETL_WORKER_METRICS_HOST
    NOETL_WORKER_METRICS_INTERVAL NOETL_WORKER_METRICS_PORT NOETL_WORKER_NATS_ACK_WAIT_BUFFER_SECONDS
    NOETL_WORKER_NATS_ACK_WAIT_SECONDS NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS
    NOETL_WORKER_NATS_MAX_ACK_PENDING NOETL_WORKER_NATS_MAX_DELIVER NOETL_WORKER_POOL_NAME NOETL_WORKER_POOL_RUNTIME
    NOETL_WORKER_POOL_SEGMENTS NOETL_WORKER_POSTGRES_POOL_WAITING_THRESHOLD NOETL_WORKER_THROTTLE_POLL_INTERVAL_SECONDS
    NOETL_ZONE POD_NAME POD_NAMESPACE
"""
RUST_METRICS = """
    noetl_subscription_ noetl_worker_affinity_decisions_total noetl_worker_build_info
    noetl_worker_call_done_skipped_pending_callback_total noetl_worker_claim_dead_lettered_total
    noetl_worker_claim_failed_total noetl_worker_claim_succeeded_total noetl_worker_command_loop_reconnect_total
    noetl_worker_command_pickup_phase_seconds noetl_worker_concurrent_dispatches
    noetl_worker_container_poll_duration_seconds noetl_worker_container_poll_started_total
    noetl_worker_container_poll_terminal_total noetl_worker_dispatch_duration_seconds noetl_worker_dispatch_errors_total
    noetl_worker_event_emit_duration_seconds noetl_worker_event_emit_failed_total noetl_worker_event_emit_retries_total
    noetl_worker_materializer_ noetl_worker_nats_consumer_ack_pending noetl_worker_nats_consumer_pending
    noetl_worker_plugin_ noetl_worker_pull_duration_seconds noetl_worker_pulls_total noetl_worker_ready
    noetl_worker_result_ noetl_worker_result_store_put_bytes_total noetl_worker_result_store_put_duration_seconds
    noetl_worker_result_store_put_errors_total noetl_worker_side_effect_barrier_total noetl_worker_state_
    noetl_worker_tool_result_error_total
"""
PYTHON_METRICS = "noetl_storage_ipc_ noetl_worker_up"


def section(start: str) -> str:
    return PAGE.partition(f"\n{start}\n")[2].partition("\n## ")[0]


def rows(text: str = PAGE) -> list[tuple[str, str]]:
    """(theirs, what stands for it here), of the tables and of the lists, which say it the other way round."""
    tables = re.findall(r"^\| ([^|]*`[^|]*) \| ([^|]*) \|$", text, re.M)
    lists = re.findall(r"^\* ((?:The same|Not |None|`noetl_)[^:]*): (.*?)(?=\n\* |\n\n|\Z)", text, re.M | re.DOTALL)
    return [*tables, *((theirs, here) for here, theirs in lists)]


def names_in(theirs: str) -> list[str]:
    return re.findall(r"`([A-Za-z][A-Za-z0-9_]+)", theirs)


def is_same(row: tuple[str, str]) -> bool:
    return row[1].lower().startswith("the same")


def metrics_of(worker: str) -> str:
    return section("## Metrics").partition(f"### Of the {worker} worker\n")[2].partition("\n### ")[0]


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        (section("## From the Rust worker"), RUST_VARIABLES),
        (section("## From the Python worker"), PYTHON_VARIABLES),
        (metrics_of("Rust"), RUST_METRICS),
        (metrics_of("Python"), PYTHON_METRICS),
    ],
    ids=["variables of the Rust worker", "of the Python worker", "metrics of the Rust worker", "of the Python worker"],
)
def test_each_of_theirs_has_its_line(text: str, theirs: str) -> None:
    named = [name for row in rows(text) for name in names_in(row[0])]
    assert sorted(set(theirs.split()) - set(named)) == []
    assert len(named) == len(set(named)), "one of them has two lines"


def test_variable_that_is_said_to_be_the_same_is_a_setting() -> None:
    same = [name for row in rows() if is_same(row) for name in names_in(row[0]) if name.isupper()]
    assert len(same) > 30
    assert set(same) <= KNOWN


def test_variable_that_stands_in_place_of_another_is_a_setting() -> None:
    for _, here in rows():
        assert set(re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`", here)) <= KNOWN | {"WORKER_MODE"}, here


def series() -> dict[str, set[str]]:
    """The labels of each metric, by the name that a scrape has."""
    metrics.TOOLS.announce(["noop"])
    metrics.BUILD_INFO.labels("0", "python")
    for family in (metrics.PENDING, metrics.ACK_PENDING):
        family.labels("stream", "consumer")
    found: dict[str, set[str]] = {}
    for one in metrics.REGISTRY.collect():
        for name in (one.name, f"{one.name}_total"):
            found[name] = {label for sample in one.samples for label in sample.labels} - {"le"}
    return found


def named_metrics(text: str) -> list[tuple[str, set[str]]]:
    found = re.findall(r"`(noetl_worker_[a-z_]+[a-z])(?:\{([^}]*)\})?`", text)
    return [(name, set(re.findall(r"([a-z_]+)(?==|,|$)", labels))) for name, labels in found]


def test_metric_that_is_said_to_be_the_same_has_their_labels() -> None:
    same = [named for row in rows(metrics_of("Rust")) if is_same(row) for named in named_metrics(row[0])]
    assert len(same) > 10
    there = series()
    assert [name for name, labels in same if name not in there or labels - there[name]] == []


def test_metric_that_is_named_in_place_of_another_is_there_with_these_labels() -> None:
    there = series()
    named = [one for _, here in rows(section("## Metrics")) for one in named_metrics(here)]
    assert len(named) > 10
    assert [name for name, labels in named if name not in there or labels - there[name]] == []
