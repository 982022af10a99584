"""Counters, gauges and histograms without locks. prometheus_client reads their values at each scrape.

The series of prometheus_client take a lock and a look-up for each event, 1 to 4 us, and a fast command has 43 events. A
series of this module takes one addition for each event. Only the main loop should add to them: if two threads add to a
series at the same moment, one addition may be lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

REGISTRY: Final = CollectorRegistry()
COMBINED_GAUGES: Final[dict[str, Callable[[Iterable[float]], float]]] = {
    "process_start_time_seconds": max,
    "process_max_fds": min,
}
"""Functions that combine the values of one gauge from all workers of a supervisor, by gauge name (`sums.py`). The
gauges listed here belong to prometheus_client; each `Gauge` adds its own function. For a gauge without a function, the
values are added up."""


class Count:
    """The value of a counter: a number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Level(Count):
    """The value of a gauge: a number that goes up and down."""

    __slots__ = ()

    def set(self, value: float) -> None:
        self.value = value


class Times:
    """A histogram: the number of values in each bucket, and the sum of all values."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        place = 0
        for bound in self._bounds:  # quicker than bisect, because most values are in the first buckets
            if value <= bound:
                break
            place += 1
        self.counts[place] += 1
        self.sum += value


SeriesT = TypeVar("SeriesT", Count, Level, Times)


class MetricFamily(Collector, Generic[SeriesT]):
    """All series of one metric: one for each combination of label values, or a single one if there are no labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], made: Callable[[], SeriesT]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.series: Final[defaultdict[tuple[str, ...], SeriesT]] = defaultdict(made)
        """Series by label values. Each one is created, at zero, on first access."""
        REGISTRY.register(self)

    def labels(self, *values: str) -> SeriesT:
        return self.series[values]

    @property
    def own(self) -> SeriesT:
        """Return the only series of a metric that has no labels."""
        return self.labels()

    def describe(self) -> Iterable[Metric]:
        """Return this metric. prometheus_client calls this method at registration and refuses a second metric of the
        same name."""
        return self.collect()

    def _rows(self) -> list[tuple[tuple[str, ...], SeriesT]]:
        return sorted(self.series.items())  # copied, because a scrape is answered in another thread


class Counter(MetricFamily[Count]):
    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels, Count)
        if not labels:
            self.inc: Final = self.own.inc

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._rows():
            family.add_metric(values, child.value)
        yield family


class Gauge(MetricFamily[Level]):
    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        combine: Callable[[Iterable[float]], float] = sum,
    ) -> None:
        """Define a gauge.

        Args:
            name: name of the metric.
            text: help text of the metric.
            labels: names of its labels.
            combine: function that combines the values of several workers. `max` or `min` if all workers report the same
                number, or if the highest or lowest number is the worst; `sum` if each worker reports a part.
        """
        super().__init__(name, text, labels, Level)
        COMBINED_GAUGES[name] = combine
        if not labels:
            self.set: Final = self.own.set

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._rows():
            family.add_metric(values, child.value)
        yield family


class Histogram(MetricFamily[Times]):
    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> None:
        self._bounds = tuple(buckets)
        super().__init__(name, text, labels, lambda: Times(self._bounds))
        if not labels:
            self.observe: Final = self.own.observe

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._rows():
            family.add_metric(values, cumulative_buckets(self._bounds, child.counts), child.sum)
        yield family


def cumulative_buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return each bucket's upper bound and the number of values up to this bound. Prometheus expects such cumulative
    counts.

    Args:
        bounds: upper bounds of the buckets, without the last bound, which is infinite.
        counts: number of values in each bucket alone.
    """
    names = [*map(str, map(float, bounds)), "+Inf"]
    return list(zip(names, accumulate(list(counts)), strict=True))
