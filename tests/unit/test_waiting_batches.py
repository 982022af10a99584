"""Batches that wait in a Python plane for ever: it reads their states from its event log (source NoETL 4.0.0), where
what a restart has lost stays `accepted`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.observability import metrics
from noetl_worker.plane.python.recent_batches import CHECK_S, OVERDUE_S
from unit.planes import command
from unit.restarted_plane import FIRST, LOOP, Restarted, checked, not_rescued

anyio_backend = virtual_time.anyio_backend


def waiting(*others: int, state: str = "accepted", later: int | None = None) -> Restarted:
    """A plane that has the first batch in its event log for ever, and has worked off the others and what is rescued."""
    known = {str(FIRST): state, **{str(FIRST + 10 * number): "completed" for number in (*others, len(others) + 1)}}
    return Restarted("batch.accepted", states=known, later=later)


def of_batches(lines: Sequence[Any]) -> list[str]:
    return [line["event"] for line in lines if line["event"].startswith("batch_")]


@pytest.mark.parametrize(
    ("others", "later", "checks", "is_rescued"),
    [
        ((), FIRST + 500, 3, True),
        ((), FIRST + 500, 1, False),
        ((), FIRST - 500, 5, False),
        ((1,), None, 3, True),
        ((), None, 2 * int(OVERDUE_S / CHECK_S), True),
    ],
    ids=[
        "a later one was over a check ago",
        "a later one has just been over",
        "an earlier one is over",
        "a later one of another execution is over",
        "nothing else shows an order, for ten minutes",
    ],
)
async def test_batch_that_waits_after_an_outage_is_rescued_once_no_queue_can_have_it(
    others: tuple[int, ...], later: int | None, checks: int, is_rescued: bool
) -> None:
    """One engine works the queue off in its order; until then the batch is left to the plane."""
    said, commands = waiting(*others, later=later), 1 + len(others)
    with capture_logs() as lines:
        await checked(said, commands=commands, checks=checks)
    assert said.sent_again(commands) == ([["step.exit"]] if is_rescued else [])
    assert not is_rescued or of_batches(lines)[0] == "batch_rescued"


async def test_item_of_a_loop_that_a_restart_has_lost_is_named_with_a_metric_and_what_to_do() -> None:
    before = metrics.BATCHES_NOT_RESCUED.own.value
    said = waiting(later=FIRST + 500)
    with capture_logs() as lines:
        await checked(said, checks=3, loop=LOOP)
    assert said.sent_again(1) == []
    [line] = [line for line in lines if line["event"].startswith("batch_")]
    assert (line["event"], line["log_level"], line["batch"]) == ("batch_not_rescued", "error", str(FIRST))
    assert line["command_id"] == command().command_id
    assert "items of its loop may be missing" in line["advice"]
    assert metrics.BATCHES_NOT_RESCUED.own.value - before == 1


async def test_batch_that_a_restart_has_met_half_way_is_named() -> None:
    said = waiting(state="processing", later=FIRST + 500)
    with capture_logs() as lines:
        await checked(said, checks=3)
    assert said.sent_again(1) == []
    assert ["began to process" in reason for reason in not_rescued(lines)] == [True]


@pytest.mark.parametrize(("was_away", "names"), [(True, ["batch_not_rescued"]), (False, [])])
async def test_worker_that_stops_names_what_an_outage_may_have_lost(was_away: bool, names: list[str]) -> None:
    said = waiting()
    with capture_logs() as lines:
        await checked(said, was_away=was_away, checks=1)
    assert of_batches(lines) == names
