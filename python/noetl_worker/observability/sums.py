"""The combined metrics of several workers, served by `run --processes`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_HIGHEST: Final = frozenset(
    {
        "noetl_worker_auth_refused",
        "noetl_worker_build_info",
        "noetl_worker_credential_ends_timestamp_seconds",
        "noetl_worker_dead_letters_kept",
        "noetl_worker_gate_down",
        "noetl_worker_loop_lag_seconds",
        "noetl_worker_nats_consumer_ack_pending",
        "noetl_worker_nats_consumer_ack_pending_full",
        "noetl_worker_nats_consumer_max_ack_pending",
        "noetl_worker_nats_consumer_pause_seconds",
        "noetl_worker_nats_consumer_pending",
        "noetl_worker_outbox_oldest_seconds",
        "noetl_worker_pool_waiting_seconds",
        "process_start_time_seconds",
        "noetl_worker_plane_down",
    }
)
"""Gauges combined by their maximum, never added: all workers report the same number, or the highest is the worst."""
_LOWEST: Final = frozenset(
    {
        "noetl_worker_durable_usable",
        "noetl_worker_nats_connected",
        "noetl_worker_nats_consumer_oldest_waiting_seconds",
        "noetl_worker_ready",
        "process_max_fds",
    }
)
"""Gauges combined by their minimum, never added: the lowest is the worst."""
_COUNTED: Final = frozenset({"counter", "histogram"})


@dataclass(frozen=True)
class _Families(Collector):
    """The collector that `generate_latest` formats as text."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def combine_metrics(texts: Iterable[str], past: Iterable[str] = ()) -> str:
    """Combine the metrics of several processes.

    Args:
        texts: text of /metrics of each running process.
        past: last text of each process that has ended. Its counters are added; its gauges are left out.
    """
    whole: dict[str, Metric] = {}
    found: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for text, is_past in (*((text, False) for text in texts), *((text, True) for text in past)):
        for family in text_string_to_metric_families(text):
            if is_past and family.type not in _COUNTED:
                continue
            whole.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            rows = found.setdefault(family.name, {})
            for sample in family.samples:
                rows.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    for name, metric in whole.items():
        together = max if name in _HIGHEST else min if name in _LOWEST else sum
        for (sample_name, labels), values in found[name].items():
            metric.add_sample(sample_name, dict(labels), together(values))
    return generate_latest(_Families(whole.values())).decode()
