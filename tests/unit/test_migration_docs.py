"""What docs/migration.md promises is there."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_worker.observability import metrics
from noetl_worker.observability.series import REGISTRY
from noetl_worker.settings.settings import SETTINGS

PAGE = Path(__file__, "../../../docs/migration.md").resolve().read_text(encoding="utf-8")
KNOWN = {name for line in SETTINGS for name in (line.variable, *line.aliases)} | {"PORT"}


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
    for one in REGISTRY.collect():
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
