"""The ids that the plane of `dev` gives: in the real planes' form, unique and growing."""

from __future__ import annotations

import time

import pytest

from noetl_worker.authoring.dev.database import EPOCH_MS, Ids
from noetl_worker.models import Dialect


class WallClock:
    """What time.time_ns says, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms = EPOCH_MS + 1
        monkeypatch.setattr(time, "time_ns", lambda: self.ms * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


@pytest.mark.parametrize(("dialect", "first"), [(Dialect.RUST, (1 << 22) + (1 << 12)), (Dialect.PYTHON, 1 << 23)])
def test_first_id_one_millisecond_after_the_epoch(clock: WallClock, dialect: Dialect, first: int) -> None:
    assert Ids(dialect).next() == first


def test_row_of_a_worker_has_the_application_form_on_both_planes(clock: WallClock) -> None:
    assert [Ids(dialect).snowflake() for dialect in Dialect] == [(1 << 22) + (1 << 12)] * 2


def test_ids_only_grow_when_the_clock_jumps_back_an_hour(clock: WallClock, dialect: Dialect) -> None:
    clock.ms += 10_000_000
    ids = Ids(dialect)
    before = ids.next()
    clock.ms -= 3_600_000
    assert before < ids.next() < ids.next()


def test_more_ids_than_a_millisecond_has_are_of_the_next_one(clock: WallClock) -> None:
    ids = Ids(Dialect.RUST)
    made = [ids.next() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {(one >> 12) & 1023 for one in made} == {1}
    assert made[-1] >> 22 == 3
