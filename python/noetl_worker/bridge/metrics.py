"""Metrics of a bridge, separate from those of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from noetl_worker.observability.series import REGISTRY, Counter, Gauge, Histogram

_OWN: Final = ("noetl_bridge_", "process_")

RECORDS: Final = Counter("noetl_bridge_records", "Acknowledged records, by destination", ["way"])
LATENCY: Final = Histogram(
    "noetl_bridge_record_duration_seconds",
    "Time from a complete record to its acknowledgement",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REFUSED: Final = Counter("noetl_bridge_refused", "Refused records, and connections refused for want of room")
RESENT: Final = Counter("noetl_bridge_resent", "Publishes to JetStream that were repeated")
HELD: Final = Gauge("noetl_bridge_held_records", "Records in memory that are not acknowledged yet")
HELD_BYTES: Final = Gauge("noetl_bridge_held_bytes", "Bytes of the records in memory that are not acknowledged yet")
OLDEST: Final = Gauge("noetl_bridge_oldest_seconds", "Age of the oldest unacknowledged record; 0: there is none")
CONNECTIONS: Final = Gauge("noetl_bridge_connections", "Connections of publishers")
ASKING: Final = Gauge("noetl_bridge_asking", "Connections to coordinators of the feed that ask for commands")
FEED_LAG: Final = Gauge(
    "noetl_bridge_feed_lag", "Commands that the feed has not given out for good, by shard", ["shard"]
)
JETSTREAM_LAG: Final = Gauge(
    "noetl_bridge_jetstream_lag", "Commands that wait or run in JetStream, for the durable NATS_CONSUMER"
)
NATS_CONNECTED: Final = Gauge("noetl_bridge_nats_connected", "1 while NATS is connected")
READY: Final = Gauge("noetl_bridge_ready", "1 while the bridge takes records")
BUILD_INFO: Final = Gauge("noetl_bridge_build_info", "Always 1; the label is the version that runs", ["version"])

STORED: Final = RECORDS.labels("jetstream")
DUPLICATE: Final = RECORDS.labels("duplicate")
FORWARDED: Final = RECORDS.labels("writer")
FEED_LAG.labels("0")


class _OwnFamilies(Collector):
    """Collector of the bridge's metrics only, taken from the shared registry, which has the worker's metrics too."""

    def collect(self) -> Iterator[Metric]:
        return (family for family in REGISTRY.collect() if family.name.startswith(_OWN))


def exposition() -> bytes:
    """Return the bridge's metrics in the Prometheus text format, for GET /metrics."""
    return generate_latest(_OwnFamilies())
