"""Counters that prometheus_client reads: the text it makes of them is what it makes of its own."""

from __future__ import annotations

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from noetl_worker.observability import series

BOUNDS = (0.1, 1.0, 10.0)


def exposition(module: object, registry: CollectorRegistry) -> list[str]:
    made = vars(module)
    alone = made["Counter"]("alone", "no labels", registry=registry)
    counter = made["Counter"]("requests", "by kind", ["kind", "status"], registry=registry)
    gauge = made["Gauge"]("level", "now", registry=registry)
    times = made["Histogram"]("took_seconds", "time", ["kind"], buckets=BOUNDS, registry=registry)
    alone.inc()
    counter.labels("http", "ok").inc(3)
    counter.labels('a "b"\n', "\\").inc()
    gauge.set(2.5)
    for value in (0.1, 0.11, 5, 100):
        times.labels("shell").observe(value)
    times.labels("noop")
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


def test_text_is_that_of_the_library() -> None:
    assert exposition(series, CollectorRegistry()) == exposition(prometheus_client, CollectorRegistry())


def test_two_families_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    series.Counter("twice", "first", registry=registry)
    with pytest.raises(ValueError, match="twice"):
        series.Counter("twice", "second", registry=registry)
