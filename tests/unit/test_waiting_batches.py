"""Batches that wait in a Python plane for ever: it reads their states from its event log (source NoETL 4.0.0), where
what a restart has lost stays `accepted`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.observability import metrics
from noetl_worker.worker.recovery.recent_batches import CHECK_S, OVERDUE_S
from unit.planes import command
from unit.restarted_plane import FIRST, LOOP, Restarted, Watching, checked, not_rescued, watching

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


async def test_item_of_a_loop_that_a_restart_has_lost_is_counted_and_named() -> None:
    before = metrics.BATCHES_NOT_RESCUED.own.value
    said = waiting(later=FIRST + 500)
    with capture_logs() as lines:
        await checked(said, checks=3, loop=LOOP)
    assert said.sent_again(1) == []
    [line] = [line for line in lines if line["event"].startswith("batch_")]
    assert (line["event"], line["log_level"], line["batch"]) == ("batch_not_rescued", "error", str(FIRST))
    assert line["command_id"] == command().command_id
    assert "lacks items of its loop" in line["advice"]
    assert metrics.BATCHES_NOT_RESCUED.own.value - before == 1


async def test_batch_that_a_restart_has_met_half_way_is_named() -> None:
    said = waiting(state="processing", later=FIRST + 500)
    with capture_logs() as lines:
        await checked(said, checks=3)
    assert said.sent_again(1) == []
    assert ["while it processed this outcome" in reason for reason in not_rescued(lines)] == [True]


@pytest.mark.parametrize(("was_away", "name"), [(True, "batch_not_rescued"), (False, "batch_left_open")])
@pytest.mark.parametrize("checks", [0, 1])
async def test_worker_that_stops_names_what_is_open(was_away: bool, name: str, checks: int) -> None:
    """It is an error where an outage may have lost it."""
    with capture_logs() as lines:
        await checked(waiting(), was_away=was_away, checks=checks)
    [line] = [line for line in lines if line["event"].startswith("batch_")]
    assert (line["event"], line["batch"]) == (name, str(FIRST))
    assert "look at the execution" in line["advice"]


async def drained(worker: Watching, grace_s: float, stopping: Stopping | None = None) -> float:
    """A worker's drain once its commands have ended. Returns: its seconds."""
    began = time.monotonic()
    await worker.recent.drain(stopping or Stopping(), began + grace_s)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("over_at_s", "within_s", "open_ones"), [(0, (0, 0.1), []), (3, (3, 5), []), (9, (5, 5.1), ["batch_left_open"])]
)
async def test_drain_waits_for_the_plane_and_no_longer_than_its_grace(
    over_at_s: float, within_s: tuple[float, float], open_ones: list[str]
) -> None:
    said = waiting()
    with capture_logs() as lines:
        async with watching(said) as worker:
            await worker.end(command())
            asyncio.get_running_loop().call_later(over_at_s, said.states.update, {str(FIRST): "completed"})
            await asyncio.sleep(0.001)
            took_s = await drained(worker, 5.0)
    assert within_s[0] <= took_s <= within_s[1]
    assert of_batches(lines) == open_ones


async def test_drain_sends_again_what_the_plane_has_lost_and_waits_for_that() -> None:
    said = Restarted("batch.accepted", states={str(FIRST + 10): "accepted"})
    with capture_logs() as lines:
        async with watching(said) as worker:
            await worker.end(command())
            asyncio.get_running_loop().call_later(2.0, said.states.update, {str(FIRST + 10): "completed"})
            took_s = await drained(worker, 25.0)
    assert said.sent_again(1) == [["step.exit"]]
    assert 2 <= took_s <= 4
    assert of_batches(lines) == ["batch_rescued"]


@pytest.mark.parametrize(("grace_s", "is_rescued"), [(5.0, False), (25.0, True)])
async def test_drain_leaves_a_batch_its_time_in_the_queue_though_it_asks_often(
    grace_s: float, is_rescued: bool
) -> None:
    """One that is enqueued at the same instant may be overtaken."""
    said = waiting(1)
    async with watching(said) as worker:
        for _ in range(2):
            await worker.end(command())
        await worker.miss()
        await drained(worker, grace_s)
    assert said.sent_again(2) == ([["step.exit"]] if is_rescued else [])


async def test_drain_ends_with_the_second_signal() -> None:
    async with watching(waiting()) as worker:
        await worker.end(command())
        stopping = Stopping()
        asyncio.get_running_loop().call_later(1.0, stopping.reach, StopLevel.HARD)
        assert 1.0 <= await drained(worker, 25.0, stopping) < 1.1
