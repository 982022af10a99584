"""Batches that a restarted Python plane has forgotten: what is asked, and what is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.errors import NotSent
from noetl_worker.models import LoopPosition
from noetl_worker.observability import metrics
from noetl_worker.pipeline.outbox.reading import read_outboxes
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.worker.recovery.recent_batches import CHECK_S, OVERDUE_S, RecentBatches
from steps import steps
from unit.outboxes import event_set
from unit.planes import Answer, Ours, ScriptedTransport, answer, command, emitter, plane
from unit.restarted_plane import EXECUTION, FIRST, LOOP, OK, Restarted, asked, checked, not_rescued, numbered, watching

anyio_backend = virtual_time.anyio_backend

STARTED = ["command.started", "step.enter"]
WHOLE = [*STARTED, "call.done", "step.exit", "command.completed"]


def overdue(lines: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    """(level, batch) of those that the log calls so."""
    return [(line["log_level"], line["batch"]) for line in lines if line["event"] == "batch_overdue"]


async def test_batch_that_was_worked_off_is_asked_about_once_and_not_sent_again() -> None:
    said = Restarted("batch.accepted", "batch.processing", "batch.completed")
    transport = await checked(said, checks=3)
    assert said.sent_again(1) == []
    events = [path for path in asked(transport) if "/events?" in path]
    assert events == [f"{EXECUTION}/events?event_type=batch.completed&page_size=200"]


@pytest.mark.parametrize("was_away", [True, False], ids=["an outage was seen", "no request met it"])
@pytest.mark.parametrize("states", [{}, {str(FIRST): "failed processing_error"}], ids=["forgotten", "not begun with"])
async def test_batch_that_is_stored_and_never_worked_off_is_rescued(states: dict[str, str], was_away: bool) -> None:
    """A restarted plane forgets it, and answers its events as duplicates (protocol/batches.md#after-the-answer). One
    that works it off writes `batch.processing` first; without a connection to its database it ends there, with the
    code that a batch has which could not be processed."""
    said = Restarted("batch.accepted", states=states)
    await checked(said, was_away=was_away)
    assert said.sent_again(1) == [["step.exit"]]
    assert said.batches[1]["events"][0]["actionable"] is True


@pytest.mark.parametrize("loop", [None, LOOP], ids=["a step", "an item of a loop"])
async def test_batch_of_which_nothing_is_stored_is_sent_again_under_its_key(
    loop: LoopPosition | None,
) -> None:
    said = Restarted()
    transport = await checked(said, loop=loop)
    assert said.sent_again(1) == [WHOLE]
    keys = [headers["idempotency-key"] for _, path, _, headers in transport.sent if path == "/api/events/batch"]
    assert keys[0] == keys[1]
    assert [path.endswith("/claim") for _, path, _, _ in transport.sent][-2:] == [True, False]


async def test_batch_is_rescued_once_though_the_plane_goes_away_at_the_next_one() -> None:
    """A second `step.exit` could issue the next commands twice (found by the simulator)."""

    class GoesAway(Restarted):
        asked = 0

        def __call__(self, method: str, path: str, body: Any) -> Answer:
            if path == f"/api/events/batch/{FIRST + 10}/status":
                self.asked += 1
                if self.asked == 1:
                    return NotSent("refused")
            return super().__call__(method, path, body)

    said = GoesAway("batch.accepted", states={str(FIRST + 20): "completed"})  # that of the rescue
    await checked(said, commands=2, checks=2)
    assert said.sent_again(2) == [["step.exit"], WHOLE]


@pytest.mark.parametrize(
    ("said", "loop", "reason"),
    [
        (Restarted("batch.accepted"), LOOP, "lacks items of its loop"),
        (Restarted("batch.accepted", "batch.processing"), None, "while it processed this outcome"),
        (Restarted(has_next=True), None, "more events"),
    ],
    ids=["an item of a loop", "begun", "too far back in the events"],
)
async def test_batch_that_may_have_been_worked_off_is_not_sent_again_and_that_is_said(
    said: Restarted, loop: LoopPosition | None, reason: str
) -> None:
    with capture_logs() as lines:
        await checked(said, loop=loop)
    assert said.sent_again(1) == []
    [told] = not_rescued(lines)
    assert reason in told


@pytest.mark.parametrize("state", ["accepted", "processing"])
async def test_batch_that_the_plane_still_knows_is_asked_about_again_and_left_to_it(state: str) -> None:
    """The connection was lost, and the plane was there all the time."""
    said = Restarted("batch.accepted", states={str(FIRST): state})
    transport = await checked(said, checks=3)
    assert said.sent_again(1) == []
    assert len(asked(transport)) >= 1


async def test_plane_that_was_there_all_the_time_is_asked_for_three_of_them_alone() -> None:
    said = Restarted("batch.completed", states=numbered(*["completed"] * 5))
    transport = await checked(said, commands=5, was_away=False, checks=3)
    states = [path for method, path, _, _ in transport.sent if method == "GET"]
    assert states == [f"/api/events/batch/{FIRST + 10 * number}/status" for number in (0, 2, 4)]


@pytest.mark.parametrize("lost", [0, 2])
async def test_batch_that_is_not_over_when_later_ones_are_is_not_taken_for_over(lost: int) -> None:
    """Of several processes of the plane one was replaced, with a batch in its queue (from the plane's source)."""
    said = Restarted(states=numbered(*["completed"] * 5) | {str(FIRST + 10 * lost): "accepted"})
    with capture_logs() as lines:
        await checked(said, commands=5, was_away=False, checks=int(OVERDUE_S / CHECK_S) + 3)
    assert overdue(lines) == [("error", str(FIRST + 10 * lost))]


@pytest.mark.parametrize("was_away", [False, True])
async def test_batch_that_the_plane_could_not_process_is_said_with_its_reason(was_away: bool) -> None:
    """Nobody else hears of it: the plane has answered 202, and the execution stays RUNNING
    (protocol/batches.md#after-the-answer)."""
    said = Restarted("batch.accepted", "batch.processing", states={str(FIRST): "failed processing_error"})
    with capture_logs() as lines:
        await checked(said, was_away=was_away, checks=3)
    [line] = [line for line in lines if line["event"].startswith("batch_")]
    assert (line["event"], line["log_level"], line["error_code"]) == ("batch_failed", "error", "processing_error")
    assert said.sent_again(1) == []


@pytest.mark.parametrize("later", [None, FIRST + 500], ids=["alone", "overtaken"])
@pytest.mark.parametrize("state", ["accepted", "processing"])
async def test_batch_that_the_plane_does_not_process_in_ten_minutes_is_said_once(state: str, later: int | None) -> None:
    """There was no outage: it may be waiting still, in another process of the plane, so nothing is sent again."""
    said = Restarted("batch.accepted", states={str(FIRST): state}, later=later)
    with capture_logs() as lines:
        transport = await checked(said, was_away=False, checks=2 * int(OVERDUE_S / CHECK_S))
    assert overdue(lines) == [("error", str(FIRST))]
    assert said.sent_again(1) == []
    asked_about = [path for _, path, _, _ in transport.sent if path.endswith("/status")]
    assert len(asked_about) <= 2 + OVERDUE_S / CHECK_S


async def test_duplicate_whose_batch_never_came_into_the_queue_is_rescued_among_others() -> None:
    """It was accepted when its state could not be had for half a minute."""
    said, middle = Restarted(states=numbered("completed", "failed ack_timeout", "completed")), str(FIRST + 10)

    def script(method: str, path: str, body: Any) -> Answer:
        if method == "GET" and len(said.batches) == 2:
            return answer(500, {"detail": "no state"})
        given = said(method, path, body)
        is_middle = path == "/api/events/batch" and len(said.batches) == 2
        return answer(202, {"status": "accepted", "request_id": middle, "duplicate": True}) if is_middle else given

    with capture_logs() as lines:
        await checked(script, commands=3, was_away=False)
    assert said.sent_again(3) == [["step.exit"]]
    assert [line["batch"] for line in lines if line["event"] == "batch_rescued"] == [middle]


@pytest.mark.parametrize(
    ("trouble", "failures", "question"),
    [(NotSent("refused"), 1, "/events?"), (answer(500), 1, "/"), (answer(500), 10, "/")],
    ids=["it is away", "it fails once", "it fails ten times"],
)
async def test_plane_that_cannot_say_what_became_of_a_batch_is_asked_again_later(
    trouble: Answer, failures: int, question: str
) -> None:
    """Found by the simulator: one 500 ended the watch over all of them."""
    said, left = Restarted("batch.accepted"), [trouble] * failures

    def script(method: str, path: str, body: Any) -> Answer:
        return left.pop() if method == "GET" and question in path and left else said(method, path, body)

    await checked(script, was_away=False, checks=failures + 1)
    assert (left, said.sent_again(1)) == ([], [["step.exit"]])


async def test_rescue_is_sent_once_where_the_question_after_the_last_batch_fails() -> None:
    """The first and the last have failed, and the plane does not answer for the last one's execution at once."""
    states = numbered(*["failed processing_error"] * 2, *["completed"] * 7)
    said, asked_about = Restarted("batch.accepted", states=states), []

    def script(method: str, path: str, body: Any) -> Answer:
        if "event_type=batch.completed" in path:
            asked_about.append(path)
            if len(asked_about) == 2:
                return answer(500, {"detail": "internal"})
        return said(method, path, body)

    with capture_logs() as lines:
        await checked(script, commands=2, was_away=False, checks=3)
    rescued = [line["batch"] for line in lines if line["event"] == "batch_rescued"]
    assert rescued == [str(FIRST), str(FIRST + 10)]


async def test_batch_that_the_plane_says_nothing_of_is_given_up_after_ten_minutes() -> None:
    said = Restarted()

    def script(method: str, path: str, body: Any) -> Answer:
        return answer(500, {"detail": "internal"}) if method == "GET" else said(method, path, body)

    with capture_logs() as lines:
        transport = await checked(script, was_away=False, checks=2 * int(OVERDUE_S / CHECK_S))
    assert overdue(lines) == [("error", str(FIRST))]
    assert len([method for method, *_ in transport.sent if method == "GET"]) <= 2 + OVERDUE_S / CHECK_S


async def test_execution_that_the_plane_cannot_show_does_not_hide_the_others() -> None:
    """It may be gone: what is asked about after it was not rescued, and given up after ten minutes."""
    others = command().execution_id + 1
    said, other = Restarted("batch.accepted"), f"/api/executions/{others}/"

    def script(method: str, path: str, body: Any) -> Answer:
        return answer(404, {"detail": "Execution not found"}) if path.startswith(other) else said(method, path, body)

    async with watching(script) as worker:
        for one in (command(execution_id=others), command()):
            said.batches.clear()  # the batch of each has the same number
            await worker.end(one)
        await asyncio.sleep(CHECK_S + 1.0)
    assert said.sent_again(1) == [["step.exit"]]


async def test_what_is_kept_of_recent_batches_has_a_limit() -> None:
    before = metrics.BATCHES_NOT_WATCHED.own.value
    await checked(Restarted(), commands=30, was_away=False, checks=0, most_bytes=20_000)
    named = 20_000 // 1024  # of the others, without their events
    assert 30 - (metrics.BATCHES_NOT_WATCHED.own.value - before) in (named - 1, named)


async def test_batch_whose_events_had_no_room_in_memory_is_named() -> None:
    said = Restarted()
    with capture_logs() as lines:
        await checked(said, commands=2, most_bytes=6_500)
    assert ["had dropped its events" in reason for reason in not_rescued(lines)] == [True]
    assert said.sent_again(2) == [WHOLE], "the second one had room"


async def test_making_room_takes_as_many_steps_however_many_batches_wait() -> None:
    at, _ = plane(Restarted())
    recent, taken = RecentBatches(most_bytes=1 << 20), []
    for number in range(3_000):
        take = partial(recent.accepted, at, event_set(number), {"request_id": str(FIRST + number)})
        if 260 <= number < 300 or number >= 2_960:  # it is just full; of all but the last the ids alone are left
            taken.append(steps(take))
        else:
            take()
    await recent.stop()
    assert max(taken[40:]) <= 2 * max(taken[:40])


@pytest.mark.parametrize("is_on_disk", [True, False])
async def test_rescue_that_no_plane_has_taken_is_on_disk_or_named_at_the_stop(tmp_path: Path, is_on_disk: bool) -> None:
    said = Restarted("batch.accepted")

    def script(method: str, path: str, body: Any) -> Answer:
        return NotSent("refused") if path == "/api/events/batch" and said.batches else said(method, path, body)

    with capture_logs() as lines:
        async with watching(script, tmp_path if is_on_disk else None) as worker:
            await worker.end(command())
            await asyncio.sleep(CHECK_S + 1.0)
    kept = [row.event_set for row in read_outboxes(tmp_path).outcomes]
    assert [one.rescues for one in kept if one is not None] == [str(FIRST)] * is_on_disk
    assert ["this worker stops" in reason for reason in not_rescued(lines)] == [True] * (not is_on_disk)


async def test_lost_batch_that_nobody_takes_up_before_the_stop_is_named_once() -> None:
    at, _ = plane(Restarted("batch.accepted"))
    telling = emitter(batches=RecentBatches())
    with capture_logs() as lines:
        await CommandEvents(command(), at, "w-1", telling, hold_s=5.0).finish(OK, Ours())
        await asyncio.sleep(CHECK_S + 1.0)
        await telling.stop()
    assert ["this worker stops" in reason for reason in not_rescued(lines)] == [True]
    assert "batch_left_open" not in [line["event"] for line in lines]


async def test_stop_that_meets_a_check_asks_for_nothing_more() -> None:
    async with watching(Restarted("batch.accepted"), many_bytes=1) as worker:  # it asks at once
        await worker.end(command())
    await asyncio.sleep(10 * CHECK_S)
    assert [path for _, path, _, _ in worker.transport.sent] == ["/api/events/batch"]


async def test_batches_that_are_too_many_to_remember_are_counted_and_said_once() -> None:
    before = metrics.BATCHES_NOT_WATCHED.own.value
    with capture_logs() as logs:
        await checked(Restarted(), commands=3, was_away=False, most_bytes=1)
    [told] = [line for line in logs if line["event"] == "batches_not_watched"]
    assert told["batch"] == str(FIRST)
    assert "noetl_worker_batches_not_watched_total" in told["advice"]
    assert metrics.BATCHES_NOT_WATCHED.own.value - before == 3


async def told_many(said: Any, commands: int) -> tuple[ScriptedTransport, float]:
    """The ends of some commands, each of which is more than may wait for the next check; what was not watched."""
    before = metrics.BATCHES_NOT_WATCHED.own.value
    async with watching(said, most_bytes=4 * 5_000, many_bytes=1) as worker:
        for _ in range(commands):
            await worker.end(command())
            for _ in range(20):  # the check has its answers at once
                await asyncio.sleep(0)
    return worker.transport, metrics.BATCHES_NOT_WATCHED.own.value - before


async def test_plane_that_keeps_up_is_asked_when_batches_are_many() -> None:
    said = Restarted(states=numbered(*["completed"] * 9))
    transport, not_watched = await told_many(said, 9)
    assert not_watched == 0
    assert asked(transport) == [], "of its executions nothing was read"
    assert said.sent_again(9) == []


async def test_plane_that_lags_behind_is_asked_for_the_one_in_the_middle() -> None:
    lag = 2

    def states(method: str, path: str, body: Any) -> Answer:
        said.states = numbered(*["completed"] * (len(said.batches) - lag), *["accepted"] * 12)
        return said(method, path, body)

    said = Restarted()
    _, not_watched = await told_many(states, 12)
    assert not_watched == 0
