"""Durations of tools by kind and status. Each command adds one duration; a scrape computes four metrics from the
durations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from noetl_worker.errors import CommandCancelled, Interrupted, ToolError
from noetl_worker.models.tool_result import ToolStatus
from noetl_worker.observability.series import MetricFamily, Times, cumulative_buckets

CANCELLED: Final = "cancelled"
"""Status of a tool whose execution was cancelled."""
INTERRUPTED: Final = "interrupted"
"""Status of a tool stopped by the worker's shutdown; the tool's command is returned to the stream."""
STATUSES: Final = (*(status.value for status in ToolStatus), CANCELLED, INTERRUPTED)


def status_after(error: BaseException) -> str:
    """Return the status, for metrics, of a tool that ended with this exception."""
    if isinstance(error, CommandCancelled):
        return CANCELLED
    if isinstance(error, Interrupted | asyncio.CancelledError):
        return INTERRUPTED
    is_timeout = isinstance(error, ToolError) and error.kind == "timeout"
    return "timeout" if is_timeout else "error"


class ToolTimes(MetricFamily[Times]):
    """The durations of tools. `labels(kind, status).observe(seconds)` adds one duration.

    A scrape makes four metrics from the durations. NoETL's published workers have two of these metrics too: the
    durations of all tools, and the number of failures. Only these two metrics have no label `status`.
    """

    def __init__(self, *, buckets: Sequence[float]) -> None:
        self._bounds = buckets
        super().__init__("", "", ("tool_kind", "status"), lambda: Times(buckets))

    def announce(self, kinds: Iterable[str]) -> None:
        """Create the series of these tool kinds at zero, so that /metrics shows them before a command of the kind has
        ended."""
        for kind in kinds:
            for status in STATUSES:
                self.labels(kind, status)

    def collect(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "noetl_worker_dispatch_duration_seconds", "Time inside a tool", labels=["tool_kind"]
        )
        errors = CounterMetricFamily(
            "noetl_worker_dispatch_errors", "Tools that raised or returned a failure", labels=["tool_kind"]
        )
        runs = CounterMetricFamily(
            "noetl_worker_tool_runs", "Runs of a tool by how they ended", labels=["tool_kind", "status"]
        )
        seconds = CounterMetricFamily(
            "noetl_worker_tool_seconds", "Seconds inside a tool by how it ended", labels=["tool_kind", "status"]
        )
        by_kind: dict[str, list[tuple[str, list[int], float]]] = {}
        for (kind, status), child in self._rows():
            counts = list(child.counts)
            runs.add_metric([kind, status], sum(counts))
            seconds.add_metric([kind, status], child.sum)
            by_kind.setdefault(kind, []).append((status, counts, child.sum))
        for kind, ended in by_kind.items():
            together = [sum(column) for column in zip(*(counts for _, counts, _ in ended), strict=True)]
            durations.add_metric([kind], cumulative_buckets(self._bounds, together), sum(took for *_, took in ended))
            failed = sum(sum(counts) for status, counts, _ in ended if status != ToolStatus.SUCCESS.value)
            errors.add_metric([kind], failed)
        yield from (durations, errors, runs, seconds)
