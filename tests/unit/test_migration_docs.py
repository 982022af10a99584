"""What docs/migration.md promises is there."""

from __future__ import annotations

import re
from pathlib import Path

from noetl_worker.observability.metrics import REGISTRY
from noetl_worker.settings.settings import SETTINGS

PAGE = Path(__file__, "../../../docs/migration.md").resolve().read_text(encoding="utf-8")
KNOWN = {name for line in SETTINGS for name in (line.variable, *line.aliases)}


def rows() -> list[tuple[list[str], str]]:
    """(their variables, what stands beside them)"""
    found = re.findall(r"^\| (`[A-Z`][^|]*) \| ([^|]*) \|$", PAGE, re.M)
    return [(re.findall(r"`([A-Z][A-Z0-9_]+)`", theirs), here) for theirs, here in found]


def test_variable_that_is_said_to_be_the_same_is_a_setting() -> None:
    same = [name for names, here in rows() if here.startswith("the same") for name in names]
    assert len(same) > 30
    assert set(same) <= KNOWN


def test_variable_that_stands_in_place_of_another_is_a_setting() -> None:
    for _, here in rows():
        assert set(re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`", here)) <= KNOWN, here


def test_metric_that_is_said_to_be_kept_is_there() -> None:
    there = {name for family in REGISTRY.collect() for name in (family.name, f"{family.name}_total")}
    named = set(re.findall(r"`(noetl_worker_[a-z_]+)`", PAGE)) - {
        "noetl_worker_claim_dead_lettered_total",  # theirs
        "noetl_worker_pool",  # a durable
    }
    assert named <= there
