"""Counters that prometheus_client reads: the text it makes of them is what it makes of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from noetl_worker.observability import series

BOUNDS = (0.1, 1.0, 10.0)


def families(module: object, **given: Any) -> Sequence[Collector]:
    made = vars(module)
    alone = made["Counter"]("alone", "no labels", **given)
    counter = made["Counter"]("requests", "by kind", ["kind", "status"], **given)
    gauge = made["Gauge"]("level", "now", **given)
    times = made["Histogram"]("took_seconds", "time", ["kind"], buckets=BOUNDS, **given)
    alone.inc()
    counter.labels("http", "ok").inc(3)
    counter.labels('a "b"\n', "\\").inc()
    gauge.set(2.5)
    for value in (0.1, 0.11, 5, 100):
        times.labels("shell").observe(value)
    times.labels("noop")
    return alone, counter, gauge, times


def exposition(made: Sequence[Collector]) -> list[str]:
    registry = CollectorRegistry()
    for family in made:
        registry.register(family)
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@contextmanager
def for_a_while(made: Sequence[Collector]) -> Iterator[None]:
    """They are among the metrics of the worker, and are taken out of them again."""
    try:
        yield
    finally:
        for family in made:
            series.REGISTRY.unregister(family)


def test_text_is_that_of_the_library() -> None:
    ours = families(series)
    with for_a_while(ours):
        assert exposition(ours) == exposition(families(prometheus_client, registry=None))


def test_two_families_of_one_name_are_refused() -> None:
    with for_a_while([series.Counter("twice", "first")]), pytest.raises(ValueError, match="twice"):
        series.Counter("twice", "second")
