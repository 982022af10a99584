"""Counters, gauges and histograms that cost an addition; prometheus_client reads them when it is scraped.

Its own take a lock and a look-up for every event, 1 to 4 us each: a fast command had 43 of them. These belong to
the main loop; a number that two threads add to at the same moment may lose one.
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


class Count:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Level(Count):
    """A number that goes up and down."""

    __slots__ = ()

    def set(self, value: float) -> None:
        self.value = value


class Times:
    """A histogram: the number of values in each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        place = 0
        for bound in self._bounds:  # most values lie in the first few: quicker than a call
            if value <= bound:
                break
            place += 1
        self.counts[place] += 1
        self.sum += value


SeriesT = TypeVar("SeriesT", Count, Level, Times)


class MetricFamily(Collector, Generic[SeriesT]):
    """The series of one name: one without labels, or one for each combination of label values that was used."""

    def __init__(self, name: str, text: str, labels: Sequence[str], made: Callable[[], SeriesT]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.series: Final[defaultdict[tuple[str, ...], SeriesT]] = defaultdict(made)
        """Series by label values. Each one is created, at zero, on first access."""
        REGISTRY.register(self)

    def labels(self, *values: str) -> SeriesT:
        return self.series[values]

    @property
    def own(self) -> SeriesT:
        """Return the only series of a family without labels."""
        return self.labels()

    def describe(self) -> Iterable[Metric]:
        """Return the family's names, so that a second family of the same name is refused."""
        return self.collect()

    def _rows(self) -> list[tuple[tuple[str, ...], SeriesT]]:
        return sorted(self.series.items())  # a copy: the scrape comes from another thread


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
    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels, Level)
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
    """Return each bucket's upper bound and the number of values below it, as Prometheus wants them."""
    names = [*map(str, map(float, bounds)), "+Inf"]
    return list(zip(names, accumulate(list(counts)), strict=True))
